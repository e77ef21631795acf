/* RowProduct for more rows than row_product.c takes itself. */
#pragma once

#include "row_operands.h"

OrtStatus *multiply_many(OrtContext *context, RowCall *call);
