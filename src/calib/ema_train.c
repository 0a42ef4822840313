/* Moving ranges in training mode, as MNN's quantizer takes them with "EMA": see train.h. */
#include "calib/train.h"

const qn_feature_method qn__feature_ema_train = {
    .name = "ema-train",
    .summary = "as ema, rounding each tensor before the next node reads it (MNN's EMA)",
    .ordered = true,
    .train = qn__train,
};
