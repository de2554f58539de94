/* Opening a model: which family it is, and what the family says about it.
 *
 * Owns: an sl_model with its lists; tensors are borrowed from the reader.
 * Invariants:
 *   1. A model that is open has every tensor its graphs bind, in shapes that its hyper-parameters give, so building a
 * graph fails for lack of memory only.
 *   2. n_expert_layers equals hyper.n_layers in these families: expert layer i is layer i.
 * Threads: open and close belong to one owner; in between a model is immutable. */
#include <inttypes.h>

#include "models/families.h"
#include "models/tensors.h"

#define ADDRESS_OF(name) &sl_family_##name,
static const sl_family *const families[] = {SL_FAMILIES(ADDRESS_OF)};

const char *sl_model_family_names(void)
{
#define SEPARATED(name) ", " #name
    static const char names[] = SL_FAMILIES(SEPARATED);
    return names + 2;
}

static sluice_status find_family(const sl_gguf *file, const sl_family **family, sluice_error *error)
{
    sl_span architecture;
    SL_TRY(sl_gguf_get_string(file, "general.architecture", &architecture, error));
    for (size_t i = 0; i < sizeof families / sizeof families[0]; i++) {
        if (sl_span_equal_text(architecture, families[i]->architecture)) {
            *family = families[i];
            return SLUICE_OK;
        }
    }
    return sl_error_set(error, SLUICE_ERROR_UNSUPPORTED,
                        "%s: the architecture is \"%.*s\": this build runs %s; use a model of one of these families",
                        file->files[0].path, SL_SPAN_ARGUMENTS(architecture), sl_model_family_names());
}

sluice_status sl_model_open(sl_model **out, const sl_gguf *file, sl_memory *memory, sluice_error *error)
{
    *out = NULL;
    const sl_family *family = NULL;
    SL_TRY(find_family(file, &family, error));
    sl_model *model = sl_alloc(memory, SL_MEMORY_OTHER, 1, sizeof *model);
    if (model == NULL) {
        return sl_error_no_memory(error, sizeof *model, "a model");
    }
    model->memory = memory;
    model->file = file;
    model->family = family;
    sluice_status status = family->read_hyper(file, &model->hyper, error);
    if (status == SLUICE_OK) {
        status = sl_model_find_tensors(model, error);
    }
    if (status != SLUICE_OK) {
        sl_model_close(&model);
        return status;
    }
    *out = model;
    return SLUICE_OK;
}

void sl_model_close(sl_model **model)
{
    if (*model == NULL) {
        return;
    }
    sl_memory *memory = (*model)->memory;
    for (uint32_t i = 0; i < (*model)->n_expert_layers; i++) {
        for (uint32_t j = 0; j < SL_EXPERT_MATRICES; j++) {
            sl_free(memory, (void *)(*model)->expert_layers[i].matrices[j].separate);
        }
    }
    sl_free(memory, (*model)->expert_layers);
    sl_free(memory, (void *)(*model)->dense);
    sl_free(memory, *model);
    *model = NULL;
}

void sl_model_expert_range(const sl_model *model, uint32_t expert_layer, uint32_t matrix, uint32_t expert,
                           uint32_t *file, uint64_t *offset, uint64_t *bytes)
{
    const sl_expert_matrix *place = &model->expert_layers[expert_layer].matrices[matrix];
    const sl_gguf_tensor *tensor = place->stacked != NULL ? place->stacked : place->separate[expert];
    *file = tensor->file;
    *offset = tensor->offset + (place->stacked != NULL ? expert * place->bytes : 0);
    *bytes = place->bytes;
}
