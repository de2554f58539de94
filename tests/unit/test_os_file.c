/* Reading files that may change, and writing files that appear whole or not at all. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
/* cmocka.h needs the four above. */
#include <cmocka.h>

#include <dirent.h>
#include <fcntl.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <linux/magic.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <sys/vfs.h>
#include <sys/wait.h>
#include <unistd.h>

#include "os/file.h"

enum { FILE_BYTES = 70001, PATH_BYTES = 256 };

typedef struct fixture {
    char directory[64];
    char path[PATH_BYTES];
    unsigned char bytes[FILE_BYTES];
} fixture;

static void store(const char *path, const void *bytes, size_t length)
{
    FILE *stream = fopen(path, "wb");
    assert_non_null(stream);
    assert_int_equal(fwrite(bytes, 1, length, stream), length);
    assert_int_equal(fclose(stream), 0);
}

static int set_up(void **state)
{
    fixture *test = calloc(1, sizeof *test);
    assert_non_null(test);
    strcpy(test->directory, P_tmpdir "/sluice-file-XXXXXX");
    assert_non_null(mkdtemp(test->directory));
    snprintf(test->path, sizeof test->path, "%s/model.bin", test->directory);
    uint32_t random = 1;
    for (size_t i = 0; i < FILE_BYTES; i++) {
        random = random * 1664525u + 1013904223u;
        test->bytes[i] = (unsigned char)(random >> 24);
    }
    store(test->path, test->bytes, FILE_BYTES);
    *state = test;
    return 0;
}

static int count_entries(const char *directory)
{
    int n_entries = 0;
    DIR *stream = opendir(directory);
    assert_non_null(stream);
    while (readdir(stream) != NULL) {
        n_entries++;
    }
    closedir(stream);
    return n_entries - 2;
}

static int tear_down(void **state)
{
    fixture *test = *state;
    DIR *stream = opendir(test->directory);
    for (struct dirent *entry; stream != NULL && (entry = readdir(stream)) != NULL;) {
        char path[PATH_BYTES + 64];
        snprintf(path, sizeof path, "%s/%s", test->directory, entry->d_name);
        if (entry->d_name[0] != '.' && unlink(path) != 0) {
            rmdir(path);
        }
    }
    closedir(stream);
    rmdir(test->directory);
    free(test);
    return 0;
}

static void a_buffered_read_returns_any_range(void **state)
{
    fixture *test = *state;
    sl_file file;
    sluice_error error = {0};
    assert_int_equal(sl_file_open(&file, test->path, false, &error), SLUICE_OK);
    assert_int_equal(file.identity.bytes, FILE_BYTES);
    assert_int_equal(file.direct_descriptor, -1);
    static const size_t ranges[][2] = {{0, FILE_BYTES}, {1, 4097}, {FILE_BYTES - 1, 1}, {FILE_BYTES, 0}, {4096, 8192}};
    for (size_t i = 0; i < sizeof ranges / sizeof ranges[0]; i++) {
        static unsigned char got[FILE_BYTES];
        assert_int_equal(sl_file_read(&file, test->path, got, ranges[i][1], ranges[i][0], &error), SLUICE_OK);
        assert_memory_equal(got, test->bytes + ranges[i][0], ranges[i][1]);
        sl_file_forget(&file, ranges[i][0], ranges[i][1]);
    }
    sl_file_close(&file);
    assert_int_equal(file.descriptor, -1);
    sl_file_close(&file);
}

static void a_direct_read_equals_a_buffered_one(void **state)
{
    fixture *test = *state;
    sl_file file;
    sluice_error error = {0};
    assert_int_equal(sl_file_open(&file, test->path, true, &error), SLUICE_OK);
    if (file.direct_descriptor < 0) {
        print_message("skipped: the filesystem of the temporary directory has no direct reads\n");
        sl_file_close(&file);
        skip();
    }
    size_t alignment = file.direct_alignment;
    assert_true(alignment > 0 && (alignment & (alignment - 1)) == 0);
    size_t capacity = (FILE_BYTES + alignment) / alignment * alignment;
    void *direct = NULL;
    assert_int_equal(posix_memalign(&direct, alignment < 16 ? 16 : alignment, capacity), 0);
    size_t done = 0;
    for (ssize_t got; done < FILE_BYTES; done += (size_t)got) {
        got = pread(file.direct_descriptor, (char *)direct + done,
                    alignment * 8 < capacity - done ? alignment * 8 : capacity - done, (off_t)done);
        assert_true(got > 0);
    }
    static unsigned char buffered[FILE_BYTES];
    assert_int_equal(sl_file_read(&file, test->path, buffered, FILE_BYTES, 0, &error), SLUICE_OK);
    assert_memory_equal(direct, buffered, FILE_BYTES);
    free(direct);
    sl_file_close(&file);
}

static void an_empty_file_opens_without_direct_reads(void **state)
{
    fixture *test = *state;
    sl_file file;
    store(test->path, "", 0);
    assert_int_equal(sl_file_open(&file, test->path, true, NULL), SLUICE_OK);
    assert_int_equal(file.identity.bytes, 0);
    assert_int_equal(file.direct_descriptor, -1);
    sl_file_close(&file);
}

static size_t count_cached_pages(const sl_file *file)
{
    unsigned char pages[FILE_BYTES / 4096 + 1] = {0};
    size_t n_cached = 0;
    void *map = mmap(NULL, FILE_BYTES, PROT_READ, MAP_SHARED, file->descriptor, 0);
    assert_true(map != MAP_FAILED);
    assert_int_equal(mincore(map, FILE_BYTES, pages), 0);
    munmap(map, FILE_BYTES);
    for (size_t i = 0; i < sizeof pages; i++) {
        n_cached += pages[i] & 1;
    }
    return n_cached;
}

static void a_forgotten_range_leaves_the_page_cache(void **state)
{
    fixture *test = *state;
    sl_file file;
    struct statfs information;
    static unsigned char bytes[FILE_BYTES];
    assert_int_equal(sl_file_open(&file, test->path, false, NULL), SLUICE_OK);
    assert_int_equal(fstatfs(file.descriptor, &information), 0);
    if (information.f_type == TMPFS_MAGIC || information.f_type == RAMFS_MAGIC) {
        print_message("skipped: the files of the temporary directory live in the page cache\n");
        sl_file_close(&file);
        skip();
    }
    /* Only what is on the disk can be dropped. */
    assert_int_equal(fsync(file.descriptor), 0);
    assert_int_equal(sl_file_read(&file, test->path, bytes, FILE_BYTES, 0, NULL), SLUICE_OK);
    size_t n_before = count_cached_pages(&file);
    bool is_told = sl_file_is_cached(&file, 0, FILE_BYTES); /* not before Linux 6.5 */
    assert_int_equal(sl_file_is_cached(&file, FILE_BYTES - 1, 4096), is_told);
    assert_false(sl_file_is_cached(&file, FILE_BYTES, 1));
    sl_file_forget(&file, 0, 0);
    assert_int_equal(count_cached_pages(&file), n_before);
    assert_int_equal(sl_file_is_cached(&file, 1, FILE_BYTES - 1), is_told);
    sl_file_forget(&file, 1, FILE_BYTES - 1);
    assert_true(count_cached_pages(&file) < n_before);
    assert_false(sl_file_is_cached(&file, 0, FILE_BYTES));
    sl_file_close(&file);
}

static void descriptors_are_in_blocking_mode(void **state)
{
    fixture *test = *state;
    sl_file file;
    assert_int_equal(sl_file_open(&file, test->path, true, NULL), SLUICE_OK);
    assert_int_equal(fcntl(file.descriptor, F_GETFL) & O_NONBLOCK, 0);
    if (file.direct_descriptor >= 0) {
        assert_int_equal(fcntl(file.direct_descriptor, F_GETFL) & O_NONBLOCK, 0);
    }
    sl_file_close(&file);
}

static void a_missing_file_is_not_found_and_named(void **state)
{
    fixture *test = *state;
    sl_file file;
    sluice_error error = {0};
    assert_int_equal(unlink(test->path), 0);
    assert_int_equal(sl_file_open(&file, test->path, true, &error), SLUICE_ERROR_NOT_FOUND);
    assert_non_null(strstr(error.message, test->path));
    assert_int_equal(file.descriptor, -1);
    sl_file_close(&file);
}

static void what_is_not_a_regular_file_is_refused_without_waiting(void **state)
{
    fixture *test = *state;
    sl_file file;
    sluice_error error = {0};
    assert_int_equal(sl_file_open(&file, test->directory, true, &error), SLUICE_ERROR_UNSUPPORTED);
    assert_non_null(strstr(error.message, "directory"));
    assert_int_equal(unlink(test->path), 0);
    assert_int_equal(mkfifo(test->path, 0600), 0);
    assert_int_equal(sl_file_open(&file, test->path, true, &error), SLUICE_ERROR_UNSUPPORTED);
    assert_int_equal(file.descriptor, -1);
}

static void reading_past_the_end_is_a_format_error(void **state)
{
    fixture *test = *state;
    sl_file file;
    sluice_error error = {0};
    char byte;
    assert_int_equal(sl_file_open(&file, test->path, false, NULL), SLUICE_OK);
    assert_int_equal(sl_file_read(&file, test->path, &byte, 1, FILE_BYTES, &error), SLUICE_ERROR_FORMAT);
    assert_non_null(strstr(error.message, "70001"));
    assert_int_equal(sl_file_read(&file, test->path, &byte, 1, UINT64_MAX, &error), SLUICE_ERROR_FORMAT);
    assert_int_equal(sl_file_read(&file, test->path, &byte, 1, INT64_MAX, &error), SLUICE_ERROR_FORMAT);
    sl_file_close(&file);
}

static void a_file_that_shrank_has_changed(void **state)
{
    fixture *test = *state;
    sl_file file;
    sluice_error error = {0};
    char bytes[100];
    assert_int_equal(sl_file_open(&file, test->path, true, NULL), SLUICE_OK);
    assert_int_equal(sl_file_check_unchanged(&file, test->path, &error), SLUICE_OK);
    assert_int_equal(truncate(test->path, 5000), 0);
    assert_int_equal(sl_file_read(&file, test->path, bytes, sizeof bytes, 4950, &error), SLUICE_ERROR_CHANGED);
    assert_int_equal(sl_file_check_unchanged(&file, test->path, &error), SLUICE_ERROR_CHANGED);
    assert_non_null(strstr(error.message, "5000"));
    sl_file_close(&file);
}

static void a_file_that_was_replaced_has_changed(void **state)
{
    fixture *test = *state;
    sl_file file;
    sluice_error error = {0};
    assert_int_equal(sl_file_open(&file, test->path, false, NULL), SLUICE_OK);
    char other[PATH_BYTES + 8];
    snprintf(other, sizeof other, "%s.other", test->path);
    store(other, test->bytes, FILE_BYTES);
    assert_int_equal(rename(other, test->path), 0);
    assert_int_equal(sl_file_check_unchanged(&file, test->path, &error), SLUICE_ERROR_CHANGED);
    assert_int_equal(unlink(test->path), 0);
    assert_int_equal(sl_file_check_unchanged(&file, test->path, &error), SLUICE_ERROR_CHANGED);
    sl_file_close(&file);
}

static void a_file_that_was_modified_in_place_has_changed(void **state)
{
    fixture *test = *state;
    sl_file file;
    assert_int_equal(sl_file_open(&file, test->path, false, NULL), SLUICE_OK);
    struct timespec times[2] = {{.tv_nsec = UTIME_OMIT}, {.tv_sec = 1000000000}};
    assert_int_equal(utimensat(AT_FDCWD, test->path, times, 0), 0);
    assert_int_equal(sl_file_check_unchanged(&file, test->path, NULL), SLUICE_ERROR_CHANGED);
    sl_file_close(&file);
}

static void assert_holds(const char *path, const void *bytes, size_t length)
{
    sl_file file;
    static unsigned char got[FILE_BYTES];
    assert_int_equal(sl_file_open(&file, path, false, NULL), SLUICE_OK);
    assert_int_equal(file.identity.bytes, length);
    assert_int_equal(sl_file_read(&file, path, got, length, 0, NULL), SLUICE_OK);
    assert_memory_equal(got, bytes, length);
    sl_file_close(&file);
}

static void a_written_file_appears_only_when_committed(void **state)
{
    fixture *test = *state;
    sl_file_writer writer;
    assert_int_equal(sl_file_writer_open(&writer, test->path, NULL), SLUICE_OK);
    assert_int_equal(sl_file_writer_write(&writer, "hello world", 11, NULL), SLUICE_OK);
    assert_int_equal(sl_file_writer_write_at(&writer, "W", 1, 6, NULL), SLUICE_OK);
    assert_int_equal(sl_file_writer_write(&writer, "!", 1, NULL), SLUICE_OK);
    assert_holds(test->path, test->bytes, FILE_BYTES);
    assert_int_equal(sl_file_writer_commit(&writer, NULL), SLUICE_OK);
    assert_holds(test->path, "hello World!", 12);
    sl_file_writer_close(&writer);
    assert_holds(test->path, "hello World!", 12);
    assert_int_equal(count_entries(test->directory), 1);
}

static void an_abandoned_file_leaves_nothing(void **state)
{
    fixture *test = *state;
    sl_file_writer writer;
    assert_int_equal(sl_file_writer_open(&writer, test->path, NULL), SLUICE_OK);
    assert_int_equal(sl_file_writer_write(&writer, "half", 4, NULL), SLUICE_OK);
    assert_int_equal(count_entries(test->directory), 2);
    sl_file_writer_close(&writer);
    assert_int_equal(count_entries(test->directory), 1);
    assert_holds(test->path, test->bytes, FILE_BYTES);
    assert_int_equal(sl_file_writer_write(&writer, "x", 1, NULL), SLUICE_ERROR_ARGUMENT);
    assert_int_equal(sl_file_writer_commit(&writer, NULL), SLUICE_ERROR_ARGUMENT);
    sl_file_writer_close(&writer);
}

static void a_killed_writer_leaves_the_final_name_alone(void **state)
{
    fixture *test = *state;
    pid_t child = fork();
    assert_true(child >= 0);
    if (child == 0) {
        sl_file_writer writer;
        bool written = sl_file_writer_open(&writer, test->path, NULL) == SLUICE_OK &&
                       sl_file_writer_write(&writer, "half", 4, NULL) == SLUICE_OK;
        if (written) {
            kill(getpid(), SIGKILL);
        }
        _exit(1);
    }
    int result = 0;
    assert_int_equal(waitpid(child, &result, 0), child);
    assert_true(WIFSIGNALED(result) && WTERMSIG(result) == SIGKILL);
    assert_holds(test->path, test->bytes, FILE_BYTES);
    assert_int_equal(count_entries(test->directory), 2);
}

static void a_partial_file_of_a_dead_process_is_taken_over(void **state)
{
    fixture *test = *state;
    char partial[PATH_BYTES + 32];
    snprintf(partial, sizeof partial, "%s.partial-%d", test->path, (int)getpid());
    store(partial, test->bytes, 1000);
    sl_file_writer writer;
    assert_int_equal(sl_file_writer_open(&writer, test->path, NULL), SLUICE_OK);
    assert_int_equal(sl_file_writer_write(&writer, "new", 3, NULL), SLUICE_OK);
    assert_int_equal(sl_file_writer_commit(&writer, NULL), SLUICE_OK);
    sl_file_writer_close(&writer);
    assert_holds(test->path, "new", 3);
}

static void two_writers_of_one_name_are_refused(void **state)
{
    fixture *test = *state;
    sl_file_writer first;
    sl_file_writer second;
    sluice_error error = {0};
    assert_int_equal(sl_file_writer_open(&first, test->path, NULL), SLUICE_OK);
    assert_int_equal(sl_file_writer_open(&second, test->path, &error), SLUICE_ERROR_IO);
    assert_true(strlen(error.message) > 0);
    sl_file_writer_close(&second);
    assert_int_equal(sl_file_writer_write(&first, "first", 5, NULL), SLUICE_OK);
    assert_int_equal(sl_file_writer_commit(&first, NULL), SLUICE_OK);
    sl_file_writer_close(&first);
    assert_holds(test->path, "first", 5);
}

static void writing_into_a_missing_directory_is_not_found(void **state)
{
    fixture *test = *state;
    sl_file_writer writer;
    sluice_error error = {0};
    char path[PATH_BYTES];
    snprintf(path, sizeof path, "%s/absent/model.bin", test->directory);
    assert_int_equal(sl_file_writer_open(&writer, path, &error), SLUICE_ERROR_NOT_FOUND);
    assert_non_null(strstr(error.message, path));
    sl_file_writer_close(&writer);
}

static void a_final_name_that_cannot_be_taken_fails_the_commit(void **state)
{
    fixture *test = *state;
    sl_file_writer writer;
    sluice_error error = {0};
    char path[PATH_BYTES];
    snprintf(path, sizeof path, "%s/taken", test->directory);
    assert_int_equal(sl_file_writer_open(&writer, path, NULL), SLUICE_OK);
    assert_int_equal(mkdir(path, 0700), 0);
    assert_int_equal(sl_file_writer_commit(&writer, &error), SLUICE_ERROR_IO);
    assert_non_null(strstr(error.message, path));
    sl_file_writer_close(&writer);
    assert_int_equal(count_entries(test->directory), 2);
}

static void what_is_no_regular_file_is_not_replaced(void **state)
{
    fixture *test = *state;
    char paths[3][PATH_BYTES + 32];
    snprintf(paths[0], sizeof paths[0], "%s/pipe", test->directory);
    snprintf(paths[1], sizeof paths[1], "%s/directory", test->directory);
    snprintf(paths[2], sizeof paths[2], "%s/link", test->directory);
    assert_int_equal(mkfifo(paths[0], 0600), 0);
    assert_int_equal(mkdir(paths[1], 0700), 0);
    assert_int_equal(symlink(paths[0], paths[2]), 0);
    for (size_t i_path = 0; i_path < 3; i_path++) {
        sl_file_writer writer;
        sluice_error error = {0};
        assert_int_equal(sl_file_writer_open(&writer, paths[i_path], &error), SLUICE_ERROR_IO);
        assert_non_null(strstr(error.message, paths[i_path]));
        assert_non_null(strstr(error.message, i_path == 1 ? "found a directory" : "found a device, pipe or socket"));
        sl_file_writer_close(&writer);
    }
    assert_int_equal(count_entries(test->directory), 4);
}

static void a_link_stays_and_what_it_leads_to_is_replaced(void **state)
{
    fixture *test = *state;
    char link[PATH_BYTES];
    struct stat information;
    snprintf(link, sizeof link, "%s/link", test->directory);
    assert_int_equal(symlink(test->path, link), 0);
    sl_file_writer writer;
    assert_int_equal(sl_file_writer_open(&writer, link, NULL), SLUICE_OK);
    assert_int_equal(sl_file_writer_write(&writer, "new", 3, NULL), SLUICE_OK);
    assert_int_equal(sl_file_writer_commit(&writer, NULL), SLUICE_OK);
    sl_file_writer_close(&writer);
    assert_int_equal(lstat(link, &information), 0);
    assert_true(S_ISLNK(information.st_mode));
    assert_holds(test->path, "new", 3);
}

static void an_open_file_is_known_under_every_name(void **state)
{
    fixture *test = *state;
    char names[3][PATH_BYTES];
    for (size_t i_name = 0; i_name < 3; i_name++) {
        snprintf(names[i_name], sizeof names[i_name], "%s/name-%zu", test->directory, i_name);
    }
    assert_int_equal(symlink(test->path, names[0]), 0);
    assert_int_equal(link(test->path, names[1]), 0);
    store(names[2], test->bytes, FILE_BYTES);
    sl_file file;
    assert_int_equal(sl_file_open(&file, test->path, false, NULL), SLUICE_OK);
    assert_true(sl_file_is_at(&file, test->path));
    assert_true(sl_file_is_at(&file, names[0]));
    assert_true(sl_file_is_at(&file, names[1]));
    assert_false(sl_file_is_at(&file, names[2]));
    assert_false(sl_file_is_at(&file, test->directory));
    assert_int_equal(unlink(test->path), 0);
    assert_false(sl_file_is_at(&file, test->path));
    sl_file_close(&file);
}

static void overwriting_what_was_not_written_is_refused(void **state)
{
    fixture *test = *state;
    sl_file_writer writer;
    assert_int_equal(sl_file_writer_open(&writer, test->path, NULL), SLUICE_OK);
    assert_int_equal(sl_file_writer_write(&writer, "abc", 3, NULL), SLUICE_OK);
    assert_int_equal(sl_file_writer_write_at(&writer, "xy", 2, 2, NULL), SLUICE_ERROR_ARGUMENT);
    assert_int_equal(sl_file_writer_write_at(&writer, "xy", 2, UINT64_MAX, NULL), SLUICE_ERROR_ARGUMENT);
    sl_file_writer_close(&writer);
}

int main(void)
{
#define FILE_TEST(function) cmocka_unit_test_setup_teardown(function, set_up, tear_down)
    const struct CMUnitTest tests[] = {
        FILE_TEST(a_buffered_read_returns_any_range),
        FILE_TEST(a_direct_read_equals_a_buffered_one),
        FILE_TEST(an_empty_file_opens_without_direct_reads),
        FILE_TEST(a_forgotten_range_leaves_the_page_cache),
        FILE_TEST(descriptors_are_in_blocking_mode),
        FILE_TEST(a_missing_file_is_not_found_and_named),
        FILE_TEST(what_is_not_a_regular_file_is_refused_without_waiting),
        FILE_TEST(reading_past_the_end_is_a_format_error),
        FILE_TEST(a_file_that_shrank_has_changed),
        FILE_TEST(a_file_that_was_replaced_has_changed),
        FILE_TEST(a_file_that_was_modified_in_place_has_changed),
        FILE_TEST(a_written_file_appears_only_when_committed),
        FILE_TEST(an_abandoned_file_leaves_nothing),
        FILE_TEST(a_killed_writer_leaves_the_final_name_alone),
        FILE_TEST(a_partial_file_of_a_dead_process_is_taken_over),
        FILE_TEST(two_writers_of_one_name_are_refused),
        FILE_TEST(writing_into_a_missing_directory_is_not_found),
        FILE_TEST(a_final_name_that_cannot_be_taken_fails_the_commit),
        FILE_TEST(what_is_no_regular_file_is_not_replaced),
        FILE_TEST(a_link_stays_and_what_it_leads_to_is_replaced),
        FILE_TEST(an_open_file_is_known_under_every_name),
        FILE_TEST(overwriting_what_was_not_written_is_refused),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
