/* `sluice inspect`: what is in a model file and what running it would take. Reads headers only. Owns the open file. */
#include "cli/model_run.h"

#include <inttypes.h>
#include <stdlib.h>
#include <string.h>

#include "cli/report.h"

enum { VALUE_COLUMNS = 100, VALUE_BYTES = 65536 };

typedef struct inspection {
    sl_console *console;
    sluice_file *file; /* owned */
    sluice_file_summary summary;
    bool has_plan;
    sluice_memory_plan plan;
    sluice_error plan_error; /* why the budget is too small, or why there is no plan */
} inspection;

/* ---- Listing ----------------------------------------------------------------------------------------------------- */

static void print_text(sl_console *console, const char *text)
{
    sl_console_print_escaped(console, text, strlen(text));
}

static void print_size(sl_console *console, const char *label, uint64_t bytes)
{
    char size[24];
    sl_console_print(console, "  %-22s %15" PRIu64 "  %s\n", label, bytes, sl_format_size(bytes, size, sizeof size));
}

static void print_summary(inspection *self)
{
    sl_console *console = self->console;
    const sluice_file_summary *summary = &self->summary;
    for (uint32_t i = 0; i < summary->n_files; i++) {
        sl_console_print(console, "%s", i == 0 ? "File\n  " : "  ");
        print_text(console, sluice_file_path(self->file, i));
        sl_console_print(console, "\n");
    }
    char size[24];
    sl_console_print(console,
                     "  GGUF version %" PRIu32 ", %s, %" PRIu64 " metadata entries, %" PRIu64 " tensors\n\nModel\n",
                     summary->version, sl_format_size(summary->file_bytes, size, sizeof size), summary->n_values,
                     summary->n_tensors);
    if (!summary->supported) {
        sl_console_print(console, "  cannot be run: ");
        print_text(console, summary->unsupported != NULL ? summary->unsupported : "unknown family");
        sl_console_print(console, "\n");
        return;
    }
    sl_console_print(console, "  ");
    print_text(console, summary->architecture);
    sl_console_print(console,
                     ": %" PRIu32 " layers, %" PRIu32 " of them with %" PRIu32 " experts, %" PRIu32 " used per token\n",
                     summary->n_layers, summary->n_expert_layers, summary->n_experts, summary->n_experts_used);
    print_size(console, "dense weights", summary->dense_bytes);
    print_size(console, "experts", summary->expert_bytes);
    print_size(console, "largest expert", summary->max_expert_bytes);
}

static void print_plan(inspection *self)
{
    sl_console *console = self->console;
    const sluice_memory_plan *plan = &self->plan;
    if (!self->has_plan) {
        return;
    }
    sl_console_print(console, "\nMemory, with a context of %" PRIu32 " and %" PRIu32 " prompt tokens at once\n",
                     plan->context_length, plan->prefill_chunk);
    print_size(console, "dense weights", plan->dense_bytes);
    print_size(console, "KV cache", plan->kv_bytes);
    print_size(console, "activations", plan->activation_bytes);
    print_size(console, "read buffers", plan->io_bytes);
    print_size(console, "vocabulary", plan->text_bytes);
    print_size(console, "program and threads", plan->process_bytes);
    print_size(console, "other", plan->other_bytes);
    print_size(console, "one expert slot", plan->slot_bytes);
    print_size(console, "smallest budget", plan->floor_bytes);
    print_size(console, "all experts resident", plan->resident_bytes);
    print_size(console, "budget", plan->budget_bytes);
    if (self->plan_error.status != SLUICE_OK) {
        sl_console_print(console, "  ");
        print_text(console, self->plan_error.message);
        sl_console_print(console, "\n");
        return;
    }
    print_size(console, "expert slots", plan->n_slots * plan->slot_bytes);
    print_size(console, "will use", plan->total_bytes);
    sl_console_print(console, "  room for %" PRIu64 " of %" PRIu64 " experts\n", plan->n_slots, plan->maximum_slots);
}

static void print_values(inspection *self)
{
    sl_console *console = self->console;
    sl_console_print(console, "\nMetadata\n");
    sluice_file_value value;
    for (uint64_t i = 0; sluice_file_value_at(self->file, i, &value) && console->write_errno == 0; i++) {
        char text[VALUE_COLUMNS + 1];
        size_t length = sluice_file_value_text(self->file, i, text, sizeof text);
        sl_console_print(console, "  ");
        print_text(console, value.key);
        sl_console_print(console, "  %s", value.type);
        if (value.count != 1) {
            sl_console_print(console, ", %" PRIu64, value.count);
        }
        sl_console_print(console, "  ");
        sl_console_print_escaped(console, text, length);
        sl_console_print(console, "%s\n", length == VALUE_COLUMNS ? "..." : "");
    }
}

static void print_tensors(inspection *self)
{
    sl_console *console = self->console;
    sl_console_print(console, "\nTensors (type, shape, bytes, file and offset, name)\n");
    sluice_file_tensor tensor;
    for (uint64_t i = 0; sluice_file_tensor_at(self->file, i, &tensor) && console->write_errno == 0; i++) {
        char shape[96] = "";
        for (uint32_t d = 0; d < tensor.n_dims && d < 4; d++) {
            size_t used = strlen(shape);
            snprintf(shape + used, sizeof shape - used, "%s%" PRIu64, d == 0 ? "" : " x ", tensor.dims[d]);
        }
        sl_console_print(console, "  %-7s %-22s %13" PRIu64 "  %" PRIu32 ":%-13" PRIu64 " ", tensor.type, shape,
                         tensor.bytes, tensor.file, tensor.offset);
        print_text(console, tensor.name);
        sl_console_print(console, "\n");
    }
}

static void print_experts(inspection *self)
{
    static const char *const matrices[] = {"gate", "up", "down"};
    sl_console *console = self->console;
    sluice_file_expert_layer layer;
    for (uint32_t i = 0; sluice_file_expert_layer_at(self->file, i, &layer) && console->write_errno == 0; i++) {
        if (i == 0) {
            sl_console_print(console, "\nExperts (file and offset of expert 0, bytes from one to the next)\n");
        }
        sl_console_print(console, "  layer %" PRIu32 ": %" PRIu32 " of %" PRIu64 " bytes\n", layer.layer,
                         layer.n_experts, layer.expert_bytes);
        for (int m = 0; m < 3; m++) {
            if (layer.types[m] == NULL) {
                continue;
            }
            sl_console_print(console, "    %-5s %-7s %" PRIu32 ":%-13" PRIu64, matrices[m], layer.types[m],
                             layer.files[m], layer.first_offset[m]);
            if (layer.stride[m] != 0) {
                sl_console_print(console, " +%" PRIu64 "\n", layer.stride[m]);
            } else {
                sl_console_print(console, " each lies for itself\n");
            }
        }
    }
}

/* ---- JSON -------------------------------------------------------------------------------------------------------- */

static json_t *json_text(inspection *self, const char *text)
{
    return text == NULL ? json_null() : sl_json_text(&self->console->memory, text, strlen(text));
}

/* Append `item`, which it takes over, to `list`; `done` says whether it was filled. */
static bool append(json_t *list, json_t *item, bool done)
{
    return json_array_append_new(list, item) == 0 && done;
}

static bool put_summary(json_t *object, inspection *self)
{
    const sluice_file_summary *summary = &self->summary;
    json_t *files = json_array();
    bool done = files != NULL;
    for (uint32_t i = 0; i < summary->n_files && done; i++) {
        done = append(files, json_text(self, sluice_file_path(self->file, i)), true);
    }
    return sl_json_put(object, "files", files) && done &&
           sl_json_put(object, "file_bytes", sl_json_count(summary->file_bytes)) &&
           sl_json_put(object, "gguf_version", json_integer(summary->version)) &&
           sl_json_put(object, "alignment", sl_json_count(summary->alignment)) &&
           sl_json_put(object, "architecture", json_text(self, summary->architecture)) &&
           sl_json_put(object, "supported", json_boolean(summary->supported)) &&
           sl_json_put(object, "unsupported",
                       summary->supported ? json_null() : json_text(self, summary->unsupported)) &&
           sl_json_put(object, "n_layers", json_integer(summary->n_layers)) &&
           sl_json_put(object, "n_expert_layers", json_integer(summary->n_expert_layers)) &&
           sl_json_put(object, "n_experts", json_integer(summary->n_experts)) &&
           sl_json_put(object, "n_experts_used", json_integer(summary->n_experts_used)) &&
           sl_json_put(object, "dense_bytes", sl_json_count(summary->dense_bytes)) &&
           sl_json_put(object, "expert_bytes", sl_json_count(summary->expert_bytes)) &&
           sl_json_put(object, "max_expert_bytes", sl_json_count(summary->max_expert_bytes));
}

static bool put_plan(json_t *object, const inspection *self)
{
    if (!self->has_plan) {
        return sl_json_put(object, "memory_plan", json_null());
    }
    const sluice_memory_plan *plan = &self->plan;
    const struct {
        const char *key;
        uint64_t value;
    } entries[] = {
        {"budget_bytes", plan->budget_bytes},
        {"process_bytes", plan->process_bytes},
        {"dense_bytes", plan->dense_bytes},
        {"kv_bytes", plan->kv_bytes},
        {"activation_bytes", plan->activation_bytes},
        {"io_bytes", plan->io_bytes},
        {"text_bytes", plan->text_bytes},
        {"other_bytes", plan->other_bytes},
        {"slot_bytes", plan->slot_bytes},
        {"n_slots", plan->n_slots},
        {"minimum_slots", plan->minimum_slots},
        {"maximum_slots", plan->maximum_slots},
        {"total_bytes", plan->total_bytes},
        {"floor_bytes", plan->floor_bytes},
        {"resident_bytes", plan->resident_bytes},
        {"prefill_chunk", plan->prefill_chunk},
        {"context_length", plan->context_length},
    };
    json_t *item = json_object();
    bool done = sl_json_put(item, "fits", json_boolean(self->plan_error.status == SLUICE_OK));
    for (size_t i = 0; i < sizeof entries / sizeof entries[0] && done; i++) {
        done = sl_json_put(item, entries[i].key, sl_json_count(entries[i].value));
    }
    return sl_json_put(object, "memory_plan", item) && done;
}

static bool put_values(json_t *object, inspection *self)
{
    char *text = malloc(VALUE_BYTES);
    json_t *list = json_array();
    bool done = text != NULL && list != NULL;
    sluice_file_value value;
    for (uint64_t i = 0; done && sluice_file_value_at(self->file, i, &value); i++) {
        size_t length = sluice_file_value_text(self->file, i, text, VALUE_BYTES);
        json_t *item = json_object();
        done = sl_json_put(item, "key", json_text(self, value.key)) &&
               sl_json_put(item, "type", json_text(self, value.type)) &&
               sl_json_put(item, "count", sl_json_count(value.count)) &&
               sl_json_put(item, "value", sl_json_text(&self->console->memory, text, length));
        done = append(list, item, done);
    }
    free(text);
    return sl_json_put(object, "metadata", list) && done;
}

static bool put_tensors(json_t *object, inspection *self)
{
    json_t *list = json_array();
    bool done = list != NULL;
    sluice_file_tensor tensor;
    for (uint64_t i = 0; done && sluice_file_tensor_at(self->file, i, &tensor); i++) {
        json_t *item = json_object();
        json_t *dims = json_array();
        for (uint32_t d = 0; d < tensor.n_dims && d < 4 && done; d++) {
            done = append(dims, sl_json_count(tensor.dims[d]), true);
        }
        done = sl_json_put(item, "dims", dims) && done && sl_json_put(item, "name", json_text(self, tensor.name)) &&
               sl_json_put(item, "type", json_text(self, tensor.type)) &&
               sl_json_put(item, "file", json_integer(tensor.file)) &&
               sl_json_put(item, "offset", sl_json_count(tensor.offset)) &&
               sl_json_put(item, "bytes", sl_json_count(tensor.bytes));
        done = append(list, item, done);
    }
    return sl_json_put(object, "tensors", list) && done;
}

static bool put_experts(json_t *object, inspection *self)
{
    static const char *const matrices[] = {"gate", "up", "down"};
    json_t *list = json_array();
    bool done = list != NULL;
    sluice_file_expert_layer layer;
    for (uint32_t i = 0; done && sluice_file_expert_layer_at(self->file, i, &layer); i++) {
        json_t *item = json_object();
        done = sl_json_put(item, "layer", json_integer(layer.layer)) &&
               sl_json_put(item, "n_experts", json_integer(layer.n_experts)) &&
               sl_json_put(item, "expert_bytes", sl_json_count(layer.expert_bytes));
        for (int m = 0; m < 3 && done; m++) {
            if (layer.types[m] == NULL) {
                continue;
            }
            json_t *matrix = json_object();
            done = sl_json_put(matrix, "type", json_text(self, layer.types[m])) &&
                   sl_json_put(matrix, "file", json_integer(layer.files[m])) &&
                   sl_json_put(matrix, "first_offset", sl_json_count(layer.first_offset[m])) &&
                   sl_json_put(matrix, "stride", sl_json_count(layer.stride[m]));
            done = sl_json_put(item, matrices[m], matrix) && done;
        }
        done = append(list, item, done);
    }
    return sl_json_put(object, "experts", list) && done;
}

static sluice_status print_json(inspection *self, sluice_error *error)
{
    json_t *object = json_object();
    bool done = put_summary(object, self) && put_plan(object, self) && put_values(object, self) &&
                put_tensors(object, self) && put_experts(object, self);
    sluice_status status =
        done ? sl_json_print(self->console, object, error) : sl_error_no_memory(error, 0, "the listing");
    json_decref(object);
    return status;
}

/* ---- The command ------------------------------------------------------------------------------------------------- */

static sluice_status inspect(inspection *self, const sl_options *options, sluice_error *error)
{
    SL_TRY(sluice_file_open(&self->file, sl_options_text(options, SL_OPTION_MODEL), error));
    sluice_file_summarize(self->file, &self->summary);
    if (self->summary.supported) {
        sluice_engine_options engine_options;
        sl_engine_options_from(&engine_options, options);
        sluice_status status = sluice_engine_plan(&engine_options, &self->plan, &self->plan_error);
        if (status != SLUICE_OK && status != SLUICE_ERROR_BUDGET) {
            *error = self->plan_error;
            return status;
        }
        self->has_plan = true;
    }
    if (sl_options_flag(options, SL_OPTION_JSON)) {
        return print_json(self, error);
    }
    print_summary(self);
    print_plan(self);
    print_values(self);
    print_tensors(self);
    print_experts(self);
    return SLUICE_OK;
}

int sl_command_inspect(const sl_options *options, sl_console *console)
{
    inspection self = {.console = console};
    sluice_error error = {0};
    sluice_status status = inspect(&self, options, &error);
    sluice_file_close(&self.file);
    return status == SLUICE_OK ? SL_EXIT_OK : sl_model_run_fail(&error);
}
