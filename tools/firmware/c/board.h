/* The functions that board.c provides to a program on the board. */
#ifndef BOARD_H
#define BOARD_H

#include <stddef.h>
#include <stdint.h>

/* Prints on the console of the debugger. */
void print(const char *text);
void print_number(uint32_t number);

/* Ends the program with an exit status; 0 for success. */
_Noreturn void end(int status);

/* Prints a message and ends the program if the condition is false. */
#define EXPECT(what) ((what) ? (void)0 : failed(#what, __FILE__, __LINE__))
_Noreturn void failed(const char *what, const char *file, int line);

/* Functions of a C library; board.c has small ones. */
void *memcpy(void *restrict to, const void *restrict from, size_t len);
void *memmove(void *to, const void *from, size_t len);
void *memset(void *to, int value, size_t len);
int memcmp(const void *one, const void *other, size_t len);
size_t strlen(const char *text);
char *strstr(const char *text, const char *part);

#endif
