/* The operators without integer products, for the vectors that are included before. Each file of
 * bodies/ that includes this one has all functions of its own; one name is seen outside.
 */
#include "../body.h"
#include "../scratch.h"
#include "functions.h"
/* in this order */
#include "skip_norm.h"
#include "attention.h"
#include "gelu.h"
#include "float_product.h"
#include "check_others.h"

#define OTHERS(NAME)                                                                         \
    const Others others_##NAME = {{&skip_norm, &cached_attention, &half_cached_attention,    \
                                   &plain_attention, &gelu, &float_product},                 \
                                  check_others}
