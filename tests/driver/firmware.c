/* Bare-metal firmware: runs programs through the driver on whatever chip the bench puts behind the hooks.
   It knows nothing of the host but the bench_ functions. */
#include <stdint.h>

uint32_t bench_read(void *model, uint32_t offset);
void bench_write(void *model, uint32_t offset, uint32_t value);
void bench_put(void *model, uint32_t address, const void *bytes, uint32_t n);
void bench_get(void *model, void *bytes, uint32_t address, uint32_t n);
void bench_idle(void *model);
void bench_interrupts(int on); /* bench_idle then waits for the interrupt */
uint32_t bench_irq(void *model);
void bench_report(const char *name, const void *bytes, uint32_t n);
void firmware(void *model);

#define TW_READ32(chip, offset) bench_read((chip)->context, (offset))
#define TW_WRITE32(chip, offset, value) bench_write((chip)->context, (offset), (value))
#define TW_PUT(chip, address, bytes, n) bench_put((chip)->context, (address), (bytes), (n))
#define TW_GET(chip, bytes, address, n) bench_get((chip)->context, (bytes), (address), (n))
#define TW_IDLE(chip) bench_idle((chip)->context)
#include "tilewright.h"

#include "digits.h"
#include "dense.h"
#include "endless.h"
#include "faults.h"
#include "inputs.h"

#define BASE 0x00400000u
#define CODE 0x00800000u
#define SCATTERED 0x02000000u
#define LOOKS 100000u

static tw_chip chip = {0, 0, NULL};
static uint8_t result[4096];
static uint32_t addresses[64];

static void report_number(const char *name, uint32_t value) { bench_report(name, &value, 4); }

static void report_counters(const char *name)
{
    tw_counters counters;
    tw_read_counters(&chip, &counters);
    bench_report(name, &counters, sizeof counters);
}

static void run_digits(const char *output, const char *counters)
{
    tw_image image = {&digits, CODE, BASE, NULL};
    uint32_t i;
    report_number("digits.load", tw_load(&chip, &image));
    for (i = 0; i < digits.input_count; i++)
        report_number("digits.input", tw_write_input(&chip, &image, i, digits_in[i]));
    report_number("digits.images", tw_find_port(digits.inputs, digits.input_count, IMAGES));
    report_number("digits.start", tw_start(&chip, &image));
    report_number("digits.wait", tw_wait(&chip, LOOKS));
    report_number("digits.no_fault", tw_read_fault(&chip, &digits).code);
    tw_read_output(&chip, &image, 0, result);
    bench_report(output, result, digits.outputs[0].size);
    report_counters(counters);
}

/* Every place somewhere else, in reverse, with the interrupt. */
static void run_scattered(void)
{
    tw_image image = {&digits, SCATTERED, 0, addresses};
    uint32_t i;
    for (i = 0; i < digits.place_count; i++)
        addresses[i] = SCATTERED + 0x100000u + (digits.place_count - i) * 0x10040u;
    tw_enable_interrupt(&chip, 1);
    bench_interrupts(1);
    tw_load(&chip, &image);
    for (i = 0; i < digits.input_count; i++) tw_write_input(&chip, &image, i, digits_in[i]);
    tw_start(&chip, &image);
    report_number("irq.running", bench_irq(chip.context));
    report_number("scattered.looks", tw_wait(&chip, 2)); /* the second after the interrupt */
    report_number("irq.ended", bench_irq(chip.context));
    report_number("irq.status", tw_acknowledge(&chip));
    report_number("irq.after", tw_status_result(bench_read(chip.context, TW_REG_STATUS)));
    report_number("irq.acknowledged", bench_irq(chip.context));
    bench_interrupts(0);
    tw_enable_interrupt(&chip, 0);
    tw_read_output(&chip, &image, 0, result);
    bench_report("scattered.output", result, digits.outputs[0].size);
}

static void run_dense(const char *output)
{
    tw_image image = {&dense, CODE + TW_CODE_ALIGN, BASE, NULL};
    tw_load(&chip, &image);
    tw_write_input(&chip, &image, 0, dense_x);
    tw_start(&chip, &image);
    report_number("dense.wait", tw_wait(&chip, LOOKS));
    tw_read_output(&chip, &image, 0, result);
    bench_report(output, result, dense.outputs[0].size);
}

static void run_faults(void)
{
    uint32_t i, k;
    for (i = 0; i < sizeof faults / sizeof *faults; i++) {
        tw_image image = {faults[i], CODE, 0, NULL};
        tw_fault fault;
        const char *texts[2];
        report_number("fault.load", tw_load(&chip, &image));
        tw_set_window(&chip, 0, 0xfff);
        tw_start(&chip, &image);
        report_number("fault.wait", tw_wait(&chip, LOOKS));
        fault = tw_read_fault(&chip, faults[i]);
        texts[0] = tw_fault_name(fault.code);
        texts[1] = tw_unit_name(fault.unit);
        for (k = 0; k < 2; k++) {
            uint32_t n = 0;
            while (texts[k][n]) n++;
            bench_report(k ? "fault.unit" : "fault.name", texts[k], n);
        }
        report_number("fault.pc", fault.pc);
        tw_set_window(&chip, 0, 0xffffffffu);
    }
}

static void run_endless(void)
{
    tw_image image = {&endless, CODE, 0, NULL};
    tw_image other = {&digits, CODE + 0x10000u, BASE, NULL};
    tw_load(&chip, &image);
    tw_start(&chip, &image);
    report_number("endless.timeout", tw_wait(&chip, 10));
    report_number("endless.busy_load", tw_load(&chip, &other));
    report_number("endless.busy_start", tw_start(&chip, &other));
    tw_abort(&chip);
    report_number("endless.aborted", tw_wait(&chip, LOOKS));
    report_number("endless.abort_code", tw_read_fault(&chip, &endless).code);
    tw_set_watchdog(&chip, 2000);
    tw_start(&chip, &image);
    report_number("endless.watched", tw_wait(&chip, LOOKS));
    report_number("endless.watchdog_code", tw_read_fault(&chip, &endless).code);
    tw_set_watchdog(&chip, 0);
}

static void refusals(void)
{
    tw_program other = digits;
    tw_image image = {&digits, CODE, BASE, NULL};
    tw_image moved = {&endless, CODE, BASE, NULL};
    other.geometry ^= 1;
    image.code = CODE + TW_INSTR_BYTES;
    report_number("refused.misaligned", tw_load(&chip, &image));
    image.code = BASE + TW_CODE_ALIGN;
    report_number("refused.code_in_data", tw_load(&chip, &image));
    image.code = BASE - TW_CODE_ALIGN;
    report_number("refused.data_in_code", tw_load(&chip, &image));
    image.program = &other;
    report_number("refused.chip", tw_load(&chip, &image));
    report_number("refused.fixed", tw_load(&chip, &moved));
    report_number("refused.input", tw_write_input(&chip, &image, digits.input_count, dense_x));
    report_number("refused.output", tw_read_output(&chip, &image, digits.output_count, result));
    report_number("refused.name", tw_find_port(digits.inputs, digits.input_count, "nothing"));
}

static void debug(void)
{
    tw_image image = {&digits, CODE, BASE, NULL};
    tw_load(&chip, &image);
    tw_set_breakpoint(&chip, 5);
    tw_start(&chip, &image);
    report_number("break.wait", tw_wait(&chip, LOOKS));
    report_number("break.pc", bench_read(chip.context, TW_REG_PC) & TW_PC_PC);
    tw_clear_breakpoint(&chip);
    tw_resume(&chip);
    report_number("break.end", tw_wait(&chip, LOOKS));
    report_number("peek.acc", tw_peek(&chip, 1, 0));
    report_number("semaphore", tw_semaphore(&chip, 0));
}

void firmware(void *model)
{
    chip.context = model;
    report_number("idle", tw_wait(&chip, 1));
    report_number("probe", tw_probe(&chip));
    report_number("geometry", bench_read(chip.context, TW_REG_GEOMETRY) == TW_GEOMETRY);
    run_digits("digits.output", "digits.counters");
    run_scattered();
    run_faults();
    run_dense("dense.output");
    run_endless();
    run_digits("again.output", "again.counters");
    refusals();
    debug();
    run_dense("last.output");
}
