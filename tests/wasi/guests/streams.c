/* Prints its arguments and one variable, copies standard input in capitals, ends with the code it is told. */
#include <ctype.h>
#include <stdio.h>
#include <stdlib.h>
#include <unistd.h>

int main(int argc, char **argv) {
  const char *value = getenv("GREETING");
  for (int i = 0; i < argc; i++)
    printf("%d: %s\n", i, argv[i]);
  printf("GREETING=%s tty=%d\n", value ? value : "(none)", isatty(1));
  fflush(stdout);
  for (int c; (c = getchar()) != EOF;)
    putchar(toupper(c));
  fprintf(stderr, "done\n");
  return argc > 1 ? atoi(argv[1]) : 0;
}
