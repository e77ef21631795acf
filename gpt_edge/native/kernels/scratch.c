/* Memory of a call that the next call reuses: to allocate and fault in fresh memory costs more
 * than the work on it.
 */
#include "scratch.h"

#include <stdatomic.h>
#include <stdlib.h>

typedef struct {
    size_t size;
    char unused[64 - sizeof(size_t)];
} Scratch;

static _Atomic(Scratch *) spare[64];

void *take_scratch(size_t size) {
    for (size_t i = 0; i < 64; i++) {
        if (!atomic_load_explicit(&spare[i], memory_order_relaxed)) continue;
        Scratch *found = atomic_exchange(&spare[i], NULL);
        if (found && found->size >= size) return found + 1;
        free(found); /* too small, and the next calls are as large */
    }
    Scratch *made = aligned_alloc(64, (size + 63) / 64 * 64 + sizeof(Scratch));
    if (!made) return NULL;
    made->size = size;
    return made + 1;
}

void give_scratch(void *memory) {
    Scratch *given = (Scratch *)memory - 1, *nothing = NULL;
    for (size_t i = 0; memory && i < 64; i++, nothing = NULL)
        if (atomic_compare_exchange_strong(&spare[i], &nothing, given)) return;
    if (memory) free(given);
}
