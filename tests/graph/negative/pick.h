/* Each file here wires one buffer into the place of another. With CORRECT defined it is wired as it should be, and
 * compiles. */
#include "graph/roles.h"

#ifdef CORRECT
#define PICK(wrong, correct) (correct)
#else
#define PICK(wrong, correct) (wrong)
#endif
