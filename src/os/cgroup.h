/* Where the limits of this process's control groups are written. */
#ifndef SL_OS_CGROUP_H
#define SL_OS_CGROUP_H

#include <stdbool.h>

/* Called with the directory of one cgroup. */
typedef void sl_cgroup_visit_fn(void *user, const char *root, const char *directory, bool is_v2);

/* Visit this process's own cgroup and then every ancestor that is mounted here, in every hierarchy (version 1 and 2)
 * that may limit `controller` ("memory", "cpu"). `root` is put before every absolute path, "" for the real machine. */
void sl_cgroup_visit(const char *root, const char *controller, sl_cgroup_visit_fn *visit, void *user);

#endif
