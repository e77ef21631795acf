/* Permission for AMX tiles. */
#include "tiles.h"

#ifdef __AMX_INT8__
#include <sys/syscall.h>
#include <unistd.h>

/* asm/prctl.h: Linux grants tile state only to a process that requests it */
enum { ARCH_REQ_XCOMP_PERM = 0x1023, TILE_DATA = 18 };
#endif

int has_amx_tiles;

void request_tiles(void) {
#ifdef __AMX_INT8__
    has_amx_tiles = !syscall(SYS_arch_prctl, ARCH_REQ_XCOMP_PERM, TILE_DATA);
#endif
}
