/* The firmware's machine: the RTL model of the chip. Every register access is an AXI4-Lite transaction at the
   model's pins; memory and the other pins are the harness' (sim/rtl_harness.cpp). Reports go to standard output. */
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>

void *tw_new(uint64_t read_latency, uint64_t write_latency, uint32_t stall, uint64_t seed);
void tw_free(void *chip);
void tw_copy(void *chip, uint32_t address, uint8_t *bytes, uint64_t n, int write);
int tw_host_write(void *chip, uint32_t address, uint32_t value);
int tw_host_read(void *chip, uint32_t address, uint32_t *value);
void tw_spin(void *chip, uint64_t cycles);
int tw_irq(void *chip);

void firmware(void *chip);
uint32_t bench_read(void *chip, uint32_t offset);
void bench_write(void *chip, uint32_t offset, uint32_t value);
void bench_put(void *chip, uint32_t address, const void *bytes, uint32_t n);
void bench_get(void *chip, void *bytes, uint32_t address, uint32_t n);
void bench_idle(void *chip);
void bench_interrupts(int on);
uint32_t bench_irq(void *chip);
void bench_report(const char *name, const void *bytes, uint32_t n);

static int interrupts;

static void require(int holds, const char *what)
{
    if (holds) return;
    fflush(stdout);
    fprintf(stderr, "%s\n", what);
    exit(1);
}

uint32_t bench_read(void *chip, uint32_t offset)
{
    uint32_t value = 0;
    require(tw_host_read(chip, offset, &value), "no answer to a read");
    return value;
}

void bench_write(void *chip, uint32_t offset, uint32_t value)
{
    require(tw_host_write(chip, offset, value), "no answer to a write");
}

void bench_put(void *chip, uint32_t address, const void *bytes, uint32_t n)
{
    tw_copy(chip, address, (uint8_t *)(uintptr_t)bytes, n, 1);
}

void bench_get(void *chip, void *bytes, uint32_t address, uint32_t n) { tw_copy(chip, address, bytes, n, 0); }

void bench_interrupts(int on) { interrupts = on; }

uint32_t bench_irq(void *chip) { return (uint32_t)tw_irq(chip); }

void bench_idle(void *chip)
{
    long i;
    if (!interrupts) {
        tw_spin(chip, 20);
        return;
    }
    for (i = 0; i < 10000000 && !tw_irq(chip); i++) tw_spin(chip, 1);
    require(tw_irq(chip), "no interrupt");
}

void bench_report(const char *name, const void *bytes, uint32_t n)
{
    const uint8_t *at = bytes;
    uint32_t i;
    printf("%s ", name);
    for (i = 0; i < n; i++) printf("%02x", at[i]);
    printf("\n");
}

int main(int count, char **words)
{
    void *chip = tw_new(60, 20, count > 1 ? (uint32_t)atoi(words[1]) : 0, 1);
    firmware(chip);
    tw_free(chip);
    return 0;
}
