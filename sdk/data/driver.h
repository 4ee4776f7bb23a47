
/* ---- Hooks: define these before the #include where the defaults do not fit your machine ---- */

/* A chip, as the CPU sees it. */
typedef struct {
    uintptr_t registers; /* CPU address of the chip's registers */
    uintptr_t memory;    /* what to add to a DRAM address of the chip to get the CPU's */
    void *context;       /* yours, for hooks of your own */
} tw_chip;

/* A 32-bit access to the register at a byte offset. */
#ifndef TW_READ32
#define TW_READ32(chip, offset) (*(volatile uint32_t *)((chip)->registers + (uintptr_t)(offset)))
#endif
#ifndef TW_WRITE32
#define TW_WRITE32(chip, offset, value) \
    ((void)(*(volatile uint32_t *)((chip)->registers + (uintptr_t)(offset)) = (value)))
#endif
/* Copy `n` bytes to or from DRAM; `address` is the chip's. */
#ifndef TW_PUT
#define TW_PUT(chip, address, bytes, n) tw_put_bytes((chip), (address), (bytes), (n))
#endif
#ifndef TW_GET
#define TW_GET(chip, bytes, address, n) tw_get_bytes((chip), (bytes), (address), (n))
#endif
/* Called before a start and after an end, so that CPU and chip see the same DRAM: clean or
   invalidate data caches here if they are not coherent. The default is a barrier. */
#ifndef TW_SYNC
#if defined(__GNUC__)
#define TW_SYNC(chip) ((void)(chip), __atomic_thread_fence(__ATOMIC_SEQ_CST))
#else
#define TW_SYNC(chip) ((void)(chip))
#endif
#endif
/* Called between two looks at STATUS: for instance wait for the interrupt. The default polls. */
#ifndef TW_IDLE
#define TW_IDLE(chip) ((void)(chip))
#endif

/* ---- Programs: `tilewright export-c` writes them ---- */

/* An array that goes in or comes out: dense, row-major, little-endian. */
typedef struct {
    const char *name, *dtype;
    uint32_t rank;
    const uint32_t *shape;
    uint32_t size;    /* bytes */
    uint32_t address; /* where it is if nothing moves */
    uint32_t place;   /* to which it belongs */
} tw_port;

/* Bytes that are in DRAM before the start. */
typedef struct {
    uint32_t address, size, place;
    const uint8_t *bytes;
} tw_data;

/* A stretch of DRAM that can be moved. */
typedef struct {
    uint32_t address, size;
} tw_place;

/* The 32-bit field at `bit` of an instruction is an address in a place. */
typedef struct {
    uint32_t instruction;
    uint16_t bit, place;
} tw_reloc;

typedef struct {
    const char *name;
    uint32_t geometry;    /* of the chip that it is for, as register GEOMETRY */
    uint32_t memory_size; /* bytes of DRAM, from address 0 if nothing moves; 0: not known */
    const uint32_t *code; /* TW_INSTR_WORDS for each instruction */
    uint32_t code_count;  /* instructions */
    const tw_data *data;
    uint32_t data_count;
    const tw_port *inputs;
    uint32_t input_count;
    const tw_port *outputs;
    uint32_t output_count;
    const tw_place *places;
    uint32_t place_count; /* 0: it cannot be moved */
    const tw_reloc *relocs; /* by instruction */
    uint32_t reloc_count;
} tw_program;

/* A program in DRAM. `addresses`, one for each place, or NULL: then all places move by `base`. */
typedef struct {
    const tw_program *program;
    uint32_t code; /* address of its code, a multiple of TW_CODE_ALIGN */
    uint32_t base;
    const uint32_t *addresses;
} tw_image;

typedef enum {
    TW_OK = 0,
    TW_FAULTED,    /* the program stopped on a fault: tw_read_fault */
    TW_STOPPED,    /* at the breakpoint */
    TW_TIMEOUT,    /* still running after that many looks */
    TW_IDLE_CHIP,  /* nothing was started, or its end was acknowledged */
    TW_BUSY,       /* a program runs */
    TW_NO_CHIP,    /* ID is not a Tilewright's */
    TW_WRONG_CHIP, /* the program is for another geometry */
    TW_FIXED,      /* the program cannot be moved */
    TW_MISALIGNED, /* the code's address */
    TW_OVERLAP,    /* code and data */
    TW_NO_PORT     /* no such input or output */
} tw_result;

/* ---- Bytes ---- */

static inline void tw_put_bytes(const tw_chip *chip, uint32_t address, const void *bytes, uint32_t n)
{
    volatile uint8_t *to = (volatile uint8_t *)(chip->memory + (uintptr_t)address);
    const uint8_t *from = (const uint8_t *)bytes;
    uint32_t i;
    for (i = 0; i < n; i++) to[i] = from[i];
}

static inline void tw_get_bytes(const tw_chip *chip, void *bytes, uint32_t address, uint32_t n)
{
    const volatile uint8_t *from = (const volatile uint8_t *)(chip->memory + (uintptr_t)address);
    uint8_t *to = (uint8_t *)bytes;
    uint32_t i;
    for (i = 0; i < n; i++) to[i] = from[i];
}

/* ---- Loading ---- */

/* Whether the chip is there. */
static inline tw_result tw_probe(const tw_chip *chip)
{
    return TW_READ32(chip, TW_REG_ID) == TW_ID ? TW_OK : TW_NO_CHIP;
}

/* How far a place has moved. */
static inline uint32_t tw_moved(const tw_image *image, uint32_t place)
{
    if (place >= image->program->place_count) return 0;
    if (!image->addresses) return image->base;
    return image->addresses[place] - image->program->places[place].address;
}

/* Bytes that the code needs in DRAM: whole lines, since the chip fetches lines. */
static inline uint32_t tw_code_size(const tw_program *program)
{
    uint32_t size = program->code_count * TW_INSTR_BYTES;
    return (size + TW_CODE_ALIGN - 1) / TW_CODE_ALIGN * TW_CODE_ALIGN;
}

/* Add `delta` to the 32-bit field at `bit` of an instruction. */
static inline void tw_patch(uint32_t *words, uint32_t bit, uint32_t delta)
{
    uint32_t at = bit / 32, shift = bit % 32, low, field;
    if (!shift) {
        words[at] += delta;
        return;
    }
    low = ((uint32_t)1 << shift) - 1;
    field = (words[at] >> shift | words[at + 1] << (32 - shift)) + delta;
    words[at] = (words[at] & low) | field << shift;
    words[at + 1] = (words[at + 1] & ~low) | field >> (32 - shift);
}

/* Write the code, its addresses moved. After a change of `addresses` this alone is needed. */
static inline void tw_load_code(const tw_chip *chip, const tw_image *image)
{
    const tw_program *program = image->program;
    uint32_t words[TW_INSTR_WORDS], i, k, r = 0;
    uint8_t bytes[TW_INSTR_BYTES];
    for (i = 0; i < program->code_count; i++) {
        for (k = 0; k < TW_INSTR_WORDS; k++) words[k] = program->code[i * TW_INSTR_WORDS + k];
        for (; r < program->reloc_count && program->relocs[r].instruction == i; r++)
            tw_patch(words, program->relocs[r].bit, tw_moved(image, program->relocs[r].place));
        for (k = 0; k < TW_INSTR_BYTES; k++) bytes[k] = (uint8_t)(words[k / 4] >> 8 * (k % 4));
        TW_PUT(chip, image->code + i * TW_INSTR_BYTES, bytes, TW_INSTR_BYTES);
    }
}

/* Write the program's own data: weights that were compiled in. */
static inline void tw_load_data(const tw_chip *chip, const tw_image *image)
{
    uint32_t i;
    for (i = 0; i < image->program->data_count; i++) {
        const tw_data *data = &image->program->data[i];
        TW_PUT(chip, data->address + tw_moved(image, data->place), data->bytes, data->size);
    }
}

/* Check that the image fits the chip, then write code and data. */
static inline tw_result tw_load(const tw_chip *chip, const tw_image *image)
{
    const tw_program *program = image->program;
    if (tw_probe(chip) != TW_OK) return TW_NO_CHIP;
    if (TW_READ32(chip, TW_REG_GEOMETRY) != program->geometry) return TW_WRONG_CHIP;
    if (TW_READ32(chip, TW_REG_STATUS) & TW_STATUS_RUNNING) return TW_BUSY;
    if (image->code % TW_CODE_ALIGN) return TW_MISALIGNED;
    if (!program->place_count && (image->base || image->addresses)) return TW_FIXED;
    if (!image->addresses && program->memory_size
        && (image->code - image->base < program->memory_size
            || image->base - image->code < tw_code_size(program)))
        return TW_OVERLAP;
    tw_load_data(chip, image);
    tw_load_code(chip, image);
    return TW_OK;
}

/* Where input or output `number` is in DRAM. */
static inline uint32_t tw_port_address(const tw_image *image, const tw_port *port)
{
    return port->address + tw_moved(image, port->place);
}

/* The number of the port with a name; `count` if there is none. */
static inline uint32_t tw_find_port(const tw_port *ports, uint32_t count, const char *name)
{
    uint32_t i, k;
    for (i = 0; i < count; i++) {
        for (k = 0; ports[i].name[k] && ports[i].name[k] == name[k]; k++) {}
        if (ports[i].name[k] == name[k]) return i;
    }
    return count;
}

static inline tw_result tw_write_input(const tw_chip *chip, const tw_image *image, uint32_t number,
                                       const void *bytes)
{
    const tw_port *port;
    if (number >= image->program->input_count) return TW_NO_PORT;
    port = &image->program->inputs[number];
    TW_PUT(chip, tw_port_address(image, port), bytes, port->size);
    return TW_OK;
}

static inline tw_result tw_read_output(const tw_chip *chip, const tw_image *image, uint32_t number,
                                       void *bytes)
{
    const tw_port *port;
    if (number >= image->program->output_count) return TW_NO_PORT;
    port = &image->program->outputs[number];
    TW_GET(chip, bytes, tw_port_address(image, port), port->size);
    return TW_OK;
}

/* ---- Running ---- */

/* The first and the last byte of DRAM that programs may touch; the code may lie outside. */
static inline void tw_set_window(const tw_chip *chip, uint32_t first, uint32_t last)
{
    TW_WRITE32(chip, TW_REG_WINDOW_BASE, first);
    TW_WRITE32(chip, TW_REG_WINDOW_LIMIT, last);
}

/* Stop programs after so many cycles; 0: never. */
static inline void tw_set_watchdog(const tw_chip *chip, uint32_t cycles)
{
    TW_WRITE32(chip, TW_REG_WATCHDOG, cycles);
}

static inline void tw_enable_interrupt(const tw_chip *chip, int on)
{
    TW_WRITE32(chip, TW_REG_IRQ_ENABLE, on ? (uint32_t)TW_IRQ_ENABLE_ENABLE : 0);
}

/* Take the interrupt back, as a handler must; returns what STATUS was. FAULT stays. */
static inline uint32_t tw_acknowledge(const tw_chip *chip)
{
    uint32_t status = TW_READ32(chip, TW_REG_STATUS);
    TW_WRITE32(chip, TW_REG_STATUS, status & (TW_STATUS_HALTED | TW_STATUS_FAULTED));
    return status;
}

static inline tw_result tw_start(const tw_chip *chip, const tw_image *image)
{
    if (TW_READ32(chip, TW_REG_STATUS) & TW_STATUS_RUNNING) return TW_BUSY;
    (void)tw_acknowledge(chip);
    TW_WRITE32(chip, TW_REG_CODE_BASE, image->code);
    TW_WRITE32(chip, TW_REG_CODE_COUNT, image->program->code_count);
    TW_SYNC(chip);
    TW_WRITE32(chip, TW_REG_CTRL, TW_CTRL_START);
    return TW_OK;
}

/* What a value of STATUS says about the program. */
static inline tw_result tw_status_result(uint32_t status)
{
    if (status & TW_STATUS_STOPPED) return TW_STOPPED;
    if (status & TW_STATUS_RUNNING) return TW_BUSY;
    if (status & TW_STATUS_FAULTED) return TW_FAULTED;
    return status & TW_STATUS_HALTED ? TW_OK : TW_IDLE_CHIP;
}

/* Wait for the end: look at STATUS up to `looks` times (0: for ever), TW_IDLE between them. */
static inline tw_result tw_wait(const tw_chip *chip, uint32_t looks)
{
    uint32_t i;
    for (i = 0; !looks || i < looks; i++) {
        tw_result result = tw_status_result(TW_READ32(chip, TW_REG_STATUS));
        if (result != TW_BUSY) {
            TW_SYNC(chip);
            return result;
        }
        TW_IDLE(chip);
    }
    return TW_TIMEOUT;
}

/* Stop the program; then tw_wait gives TW_FAULTED with TW_FAULT_ABORT, or TW_OK if it had ended. */
static inline void tw_abort(const tw_chip *chip)
{
    TW_WRITE32(chip, TW_REG_CTRL, TW_CTRL_ABORT);
}

/* ---- What happened ---- */

typedef struct {
    uint32_t code; /* TW_FAULT_... */
    uint32_t pc;   /* the instruction's number */
    uint32_t unit; /* TW_UNIT_... that executes it */
} tw_fault;

/* Why the last program stopped; code TW_FAULT_NONE if it did not fault. */
static inline tw_fault tw_read_fault(const tw_chip *chip, const tw_program *program)
{
    tw_fault fault;
    fault.code = TW_READ32(chip, TW_REG_FAULT) & TW_FAULT_CODE;
    fault.pc = TW_READ32(chip, TW_REG_FAULT_PC) & TW_FAULT_PC_PC;
    fault.unit = TW_UNIT_SEQ;
    if (fault.pc < program->code_count)
        fault.unit = tw_unit_of(program->code[fault.pc * TW_INSTR_WORDS] & TW_OPCODE_MASK);
    return fault;
}

static inline uint32_t tw_counter(const tw_chip *chip, uint32_t index)
{
    return TW_READ32(chip, TW_REG_COUNTER + 4 * index);
}

/* Count of a semaphore. */
static inline uint32_t tw_semaphore(const tw_chip *chip, uint32_t number)
{
    return TW_READ32(chip, TW_REG_SEMAPHORE + 4 * number);
}

/* ---- Debugging ---- */

/* Stop before instruction `pc`; tw_wait then gives TW_STOPPED. */
static inline void tw_set_breakpoint(const tw_chip *chip, uint32_t pc)
{
    TW_WRITE32(chip, TW_REG_BREAK, TW_BREAK_ON | (pc & TW_BREAK_PC));
}

static inline void tw_clear_breakpoint(const tw_chip *chip) { TW_WRITE32(chip, TW_REG_BREAK, 0); }

static inline void tw_resume(const tw_chip *chip)
{
    TW_WRITE32(chip, TW_REG_CTRL, TW_CTRL_RESUME);
}

/* A word of a local memory, `offset` in bytes, while nothing runs or at the breakpoint. */
static inline uint32_t tw_peek(const tw_chip *chip, int accumulator, uint32_t offset)
{
    TW_WRITE32(chip, TW_REG_DEBUG_ADDR, offset | (accumulator ? TW_DEBUG_ADDR_ACC : 0));
    return TW_READ32(chip, TW_REG_DEBUG_DATA);
}
