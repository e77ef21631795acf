/* The operators with integer products, for the vectors and products that are included before. Each
 * file of bodies/ that includes this one has all functions of its own; one name is seen outside.
 */
#include "../body.h"
#include "../scratch.h"
#include "functions.h"
/* in this order */
#include "row_product.h"
#include "block_product.h"
#include "check_products.h"

#define BODY(NAME, OTHERS) \
    const Body body_##NAME = {#NAME, {&row_product, &block_product}, check_products, &OTHERS}
