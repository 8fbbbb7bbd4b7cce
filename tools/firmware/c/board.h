/* What a program on the board gets from board.c. */
#ifndef BOARD_H
#define BOARD_H

#include <stddef.h>
#include <stdint.h>

/* Prints on the console of whoever holds the debug port. */
void print(const char *text);
void print_number(uint32_t number);

/* Ends the program with an exit status; 0 when all is well. */
_Noreturn void end(int status);

/* Ends the program with a sentence when something is not as it should be. */
#define EXPECT(what) ((what) ? (void)0 : failed(#what, __FILE__, __LINE__))
_Noreturn void failed(const char *what, const char *file, int line);

/* What a C library would bring; board.c has the smallest. */
void *memcpy(void *restrict to, const void *restrict from, size_t len);
void *memmove(void *to, const void *from, size_t len);
void *memset(void *to, int value, size_t len);
int memcmp(const void *one, const void *other, size_t len);
size_t strlen(const char *text);
char *strstr(const char *text, const char *part);

#endif
