/* A library: a constructor runs in _initialize, and a function that prints. */
#include <stdio.h>

static int state;

__attribute__((constructor)) static void begin(void) {
  state = 40;
  printf("made\n");
  fflush(stdout);
}

__attribute__((export_name("bump"))) int bump(int by) {
  state += by;
  printf("state %d\n", state);
  fflush(stdout);
  return state;
}
