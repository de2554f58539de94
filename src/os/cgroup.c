/* Owns nothing: finds the directories of this process's control groups from /proc/self/mountinfo and /proc/self/cgroup.
 *
 * Invariants
 *  (1) Nothing is allocated and nothing is kept: every call asks the kernel again.
 *  (2) What is missing or oddly formed is left out, never an error.
 *  (3) A cgroup binds a process through its own limits and through those of all its ancestors, so all are visited.
 * Threads: any. */
#include "os/cgroup.h"

#include <stdio.h>
#include <string.h>

#include "os/kernel_text.h"

/* Whether a comma-separated list holds `word`. */
static bool list_has(const char *list, const char *word)
{
    size_t length = strlen(word);
    while (list != NULL) {
        if (strncmp(list, word, length) == 0 && (list[length] == ',' || list[length] == '\0')) {
            return true;
        }
        list = strchr(list, ',');
        if (list != NULL) {
            list++;
        }
    }
    return false;
}

/* Turn the kernel's \ooo escapes of blanks and backslashes back, in place. */
static void unescape(char *text)
{
    char *out = text;
    while (*text != '\0') {
        if (text[0] == '\\' && text[1] >= '0' && text[1] <= '3' && text[2] >= '0' && text[2] <= '7' && text[3] >= '0' &&
            text[3] <= '7') {
            *out++ = (char)(((text[1] - '0') << 6) | ((text[2] - '0') << 3) | (text[3] - '0'));
            text += 4;
        } else {
            *out++ = *text++;
        }
    }
    *out = '\0';
}

/* One cgroup hierarchy that may limit the controller: where it is mounted and which part of it. */
typedef struct cgroup_mount {
    bool is_v2;
    char *root;  /* borrowed from the line: the cgroup that the mount shows as its top */
    char *point; /* borrowed from the line: the directory it is mounted on */
} cgroup_mount;

/* Take a line of mountinfo apart: "id parent major:minor root point options [optional...] - type source options".
 * false when it is no cgroup hierarchy with the controller. */
static bool parse_mount(char *line, const char *controller, cgroup_mount *mount)
{
    char *separator = strstr(line, " - ");
    if (separator == NULL) {
        return false;
    }
    *separator = '\0';
    char *rest = NULL;
    char *type = strtok_r(separator + 3, " ", &rest);
    (void)strtok_r(NULL, " ", &rest);
    char *super_options = strtok_r(NULL, " ", &rest);
    if (type == NULL || super_options == NULL) {
        return false;
    }
    mount->is_v2 = strcmp(type, "cgroup2") == 0;
    if (!mount->is_v2 && (strcmp(type, "cgroup") != 0 || !list_has(super_options, controller))) {
        return false;
    }
    rest = NULL;
    char *field = strtok_r(line, " ", &rest);
    for (int i = 0; i < 3 && field != NULL; i++) {
        field = strtok_r(NULL, " ", &rest);
    }
    mount->root = field;
    mount->point = field == NULL ? NULL : strtok_r(NULL, " ", &rest);
    if (mount->point == NULL) {
        return false;
    }
    unescape(mount->root);
    unescape(mount->point);
    return true;
}

/* This process's path in the hierarchy, from /proc/self/cgroup: "0::/path" for version 2, "4:cpu,memory:/path" for
 * version 1. */
static bool find_cgroup_path(const char *root, const char *controller, bool is_v2, char path[SL_KERNEL_PATH_BYTES])
{
    sl_kernel_text reader;
    sl_kernel_text_open(&reader, root, "/proc/self/cgroup");
    bool found = false;
    for (char *line = sl_kernel_text_line(&reader); line != NULL && !found; line = sl_kernel_text_line(&reader)) {
        char *controllers = strchr(line, ':');
        char *place = controllers == NULL ? NULL : strchr(controllers + 1, ':');
        if (place == NULL || place[1] != '/' || strlen(place + 1) >= SL_KERNEL_PATH_BYTES) {
            continue;
        }
        *place = '\0';
        if (is_v2 ? strncmp(line, "0:", 2) == 0 && controllers[1] == '\0' : list_has(controllers + 1, controller)) {
            memcpy(path, place + 1, strlen(place + 1) + 1);
            found = true;
        }
    }
    sl_kernel_text_close(&reader);
    return found;
}

/* From the process's own cgroup up to the top of the mount. */
static void visit_mount(const char *root, const char *controller, const cgroup_mount *mount, sl_cgroup_visit_fn *visit,
                        void *user)
{
    char path[SL_KERNEL_PATH_BYTES];
    if (!find_cgroup_path(root, controller, mount->is_v2, path)) {
        return;
    }
    /* The mount may show only a part of the hierarchy, as in a container that sees its host's names. */
    size_t skip = strcmp(mount->root, "/") == 0 ? 0 : strlen(mount->root);
    bool inside = strncmp(path, mount->root, skip) == 0 && (path[skip] == '/' || path[skip] == '\0');
    char directory[2 * SL_KERNEL_PATH_BYTES];
    int length = snprintf(directory, sizeof directory, "%s%s", mount->point, inside ? path + skip : "");
    if (length < 0 || (size_t)length >= sizeof directory) {
        return;
    }
    size_t top = strlen(mount->point);
    size_t end = (size_t)length;
    for (;;) {
        while (end > top && directory[end - 1] == '/') {
            end--;
        }
        directory[end] = '\0';
        visit(user, root, directory, mount->is_v2);
        if (end <= top) {
            return;
        }
        while (end > top && directory[end - 1] != '/') {
            end--;
        }
    }
}

void sl_cgroup_visit(const char *root, const char *controller, sl_cgroup_visit_fn *visit, void *user)
{
    sl_kernel_text mounts;
    sl_kernel_text_open(&mounts, root, "/proc/self/mountinfo");
    for (char *line = sl_kernel_text_line(&mounts); line != NULL; line = sl_kernel_text_line(&mounts)) {
        cgroup_mount mount;
        if (parse_mount(line, controller, &mount)) {
            visit_mount(root, controller, &mount, visit, user);
        }
    }
    sl_kernel_text_close(&mounts);
}
