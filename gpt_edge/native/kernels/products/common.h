/* Sizes that all integer products have in common. */
#pragma once

enum { COLUMNS = 64 }; /* of W [K, N] that few_product takes, and many_pack_rows */
enum { UNIT = 64 };    /* weights of a row of W [N, K] that block_unit takes */
