/* Finding a model's tensors. Internal to this folder. */
#ifndef SL_MODELS_TENSORS_H
#define SL_MODELS_TENSORS_H

#include "models/model.h"

/* Find and check every tensor: fills in `dense` and `expert_layers`, which stay the model's also on failure. */
SLUICE_NODISCARD sluice_status sl_model_find_tensors(sl_model *model, sluice_error *error);

#endif
