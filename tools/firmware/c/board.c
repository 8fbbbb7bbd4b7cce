/* The board: starts a program, prints through semihosting, and ends the program. */
#include "board.h"

extern uint32_t stack_top, data_start, data_end, data_load, bss_start, bss_end;
int main(void);

static _Noreturn void trap(void) {
    end(3);
}

_Noreturn void reset(void) {
    uint32_t *from = &data_load;
    for (uint32_t *to = &data_start; to < &data_end;) {
        *to++ = *from++;
    }
    for (uint32_t *to = &bss_start; to < &bss_end;) {
        *to++ = 0;
    }
    end(main());
}

/* The vector table: initial stack pointer and handlers. */
__attribute__((section(".vectors"), used)) static const void *const vectors[16] = {
    &stack_top, reset, trap, trap, trap, trap, trap, 0, 0, 0, 0, trap, trap, 0, trap, trap,
};

/* Makes a semihosting request to the debugger. On real hardware a debugger must be attached. */
static uint32_t request(uint32_t what, const void *with) {
    register uint32_t r0 __asm__("r0") = what;
    register const void *r1 __asm__("r1") = with;
    __asm__ volatile("bkpt 0xab" : "+r"(r0) : "r"(r1) : "memory");
    return r0;
}

void print(const char *text) {
    request(0x04, text);
}

void print_number(uint32_t number) {
    char text[11];
    char *at = text + sizeof text;
    *--at = 0;
    do {
        *--at = (char)('0' + number % 10);
        number /= 10;
    } while (number > 0);
    print(at);
}

_Noreturn void end(int status) {
    const uint32_t block[2] = {0x20026, (uint32_t)status};
    request(0x20, block);
    for (;;) {
    }
}

_Noreturn void failed(const char *what, const char *file, int line) {
    print(file);
    print(":");
    print_number((uint32_t)line);
    print(": not so: ");
    print(what);
    print("\n");
    end(1);
}

/* Functions of a C library: small, not fast, except that memset writes words where it can. */

void *memcpy(void *restrict to, const void *restrict from, size_t len) {
    for (size_t index = 0; index < len; index++) {
        ((uint8_t *)to)[index] = ((const uint8_t *)from)[index];
    }
    return to;
}

void *memmove(void *to, const void *from, size_t len) {
    if ((uintptr_t)to <= (uintptr_t)from) {
        return memcpy(to, from, len);
    }
    while (len-- > 0) {
        ((uint8_t *)to)[len] = ((const uint8_t *)from)[len];
    }
    return to;
}

void *memset(void *to, int value, size_t len) {
    size_t index = 0;
    if ((uintptr_t)to % sizeof(uint32_t) == 0) {
        const uint32_t word = (uint8_t)value * UINT32_C(0x01010101);
        for (; len - index >= sizeof word; index += sizeof word) {
            *(volatile uint32_t *)((uint8_t *)to + index) = word;
        }
    }
    for (; index < len; index++) {
        ((uint8_t *)to)[index] = (uint8_t)value;
    }
    return to;
}

int memcmp(const void *one, const void *other, size_t len) {
    for (size_t index = 0; index < len; index++) {
        int difference = ((const uint8_t *)one)[index] - ((const uint8_t *)other)[index];
        if (difference != 0) {
            return difference;
        }
    }
    return 0;
}

/* These functions under the names of the Arm run-time ABI, which compilers call too. The number in
 * a name is the alignment of the pointers. */
#define ALIAS(name, of, ...) void *name(__VA_ARGS__) __attribute__((alias(of)))
#define COPIES(size)                                                                               \
    ALIAS(__aeabi_memcpy##size, "memcpy", void *restrict to, const void *restrict from,            \
          size_t len);                                                                             \
    ALIAS(__aeabi_memmove##size, "memmove", void *to, const void *from, size_t len);               \
    ALIAS(__aeabi_memset##size, "set", void *to, size_t len, int value);                           \
    ALIAS(__aeabi_memclr##size, "clear", void *to, size_t len)

static __attribute__((used)) void *set(void *to, size_t len, int value) {
    return memset(to, value, len);
}

static __attribute__((used)) void *clear(void *to, size_t len) {
    return memset(to, 0, len);
}

COPIES();
COPIES(4);
COPIES(8);

size_t strlen(const char *text) {
    size_t len = 0;
    while (text[len] != 0) {
        len++;
    }
    return len;
}

char *strstr(const char *text, const char *part) {
    for (size_t len = strlen(part); *text != 0; text++) {
        if (memcmp(text, part, len) == 0) {
            return (char *)text;
        }
    }
    return NULL;
}
