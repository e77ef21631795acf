/* BlockProduct for more than one row. */
#pragma once

#include "block_operands.h"

OrtStatus *multiply_tiles(OrtContext *context, BlockCall *call);
