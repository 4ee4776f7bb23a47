/* The default hooks: registers and DRAM are arrays. Prints what a load and a start leave in them. */
#include <stdio.h>

#include "tilewright.h"

#include "dense.h"

#define BASE 0x4000u
#define CODE 0x1000u

static uint32_t registers[1024];
static uint8_t memory[1 << 17];

static void dump(const char *name, const void *bytes, size_t n)
{
    const uint8_t *at = (const uint8_t *)bytes;
    printf("%s ", name);
    while (n--) printf("%02x", *at++);
    printf("\n");
}

int main(void)
{
    static const float x[64] = {1, 2, 3};
    static uint32_t addresses[16];
    tw_chip chip = {(uintptr_t)registers, (uintptr_t)memory - BASE, NULL};
    tw_image image = {&dense, BASE + CODE, 0, addresses};
    uint32_t i;
    registers[TW_REG_ID / 4] = TW_ID;
    registers[TW_REG_GEOMETRY / 4] = dense.geometry;
    for (i = 0; i < dense.place_count; i++) addresses[i] = BASE + 0x10000u - 0x1040u * i;
    if (tw_load(&chip, &image) != TW_OK || tw_write_input(&chip, &image, 0, x) != TW_OK) return 1;
    if (tw_start(&chip, &image) != TW_OK) return 1;
    registers[TW_REG_STATUS / 4] = TW_STATUS_HALTED;
    if (tw_wait(&chip, 1) != TW_OK) return 1;
    dump("code", memory + CODE, dense.code_count * TW_INSTR_BYTES);
    dump("data", memory + tw_moved(&image, dense.data[0].place) + dense.data[0].address - BASE,
         dense.data[0].size);
    dump("input", memory + tw_port_address(&image, &dense.inputs[0]) - BASE, dense.inputs[0].size);
    dump("addresses", addresses, 4 * dense.place_count);
    dump("registers", registers, TW_REG_COUNTER);
    return 0;
}
