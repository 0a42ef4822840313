#include "mnntool/tool.h"
qn_status qn__mnn_ema(const qn_mnn_run *run, qn_mnn_scales *scales, qn_fb_document *out, qn_error *error)
{ (void)run,(void)scales,(void)out; QN_FAIL(error, QN_UNSUPPORTED, "EMA"); }
