/* Works through a directory as a program does: makes, writes, reads back, lists, renames, links, asks, removes.
   Each line it prints is the outcome of one step. */
#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <time.h>
#include <unistd.h>

static void step(const char *what, long result) {
  printf("%s: %ld %s\n", what, result, result < 0 ? strerror(errno) : "");
}

static int by_name(const void *a, const void *b) { return strcmp(*(char *const *)a, *(char *const *)b); }

static void list(const char *path) {
  char *names[256];
  int count = 0;
  DIR *dir = opendir(path);
  if (!dir) {
    step("opendir", -1);
    return;
  }
  for (struct dirent *entry; (entry = readdir(dir)) && count < 256;) {
    names[count] = malloc(300);
    sprintf(names[count++], "%s(%d)", entry->d_name, entry->d_type);
  }
  closedir(dir);
  qsort(names, count, sizeof *names, by_name);
  printf("list %s:", path);
  for (int i = 0; i < count; i++)
    printf(" %s", names[i]);
  printf("\n");
}

static void show(const char *path) {
  struct stat st;
  int found = stat(path, &st);
  if (found < 0)
    step(path, found);
  else
    printf("stat %s: %d %lld %d %lld\n", path, S_ISDIR(st.st_mode), S_ISDIR(st.st_mode) ? 0 : (long long)st.st_size,
           S_ISDIR(st.st_mode) ? 0 : (int)st.st_nlink,
           st.st_mtim.tv_sec == 2000 ? 2000LL : -1LL); /* what was set, or the time of the run */
}

int main(void) {
  char buffer[100] = {0};
  struct timespec times[2] = {{1000, 0}, {2000, 5}};
  step("mkdir", mkdir("work", 0777));
  step("mkdir again", mkdir("work", 0777));
  int fd = open("work/file", O_CREAT | O_EXCL | O_RDWR, 0666);
  step("open", fd >= 0 ? 0 : -1);
  step("write", write(fd, "hello, world", 12));
  step("seek", lseek(fd, -5, SEEK_END));
  step("read", read(fd, buffer, sizeof buffer));
  printf("%s\n", buffer);
  step("pwrite", pwrite(fd, "HELLO", 5, 0));
  step("pread", pread(fd, buffer, 12, 0));
  printf("%.12s\n", buffer);
  step("truncate", ftruncate(fd, 8));
  step("sync", fsync(fd));
  step("futimens", futimens(fd, times));
  step("close", close(fd));
  step("close again", close(fd));
  show("work/file");
  fd = open("work/file", O_WRONLY | O_APPEND);
  step("append", write(fd, "!!", 2));
  step("read of what was opened to write", read(fd, buffer, 1));
  close(fd);
  step("link", link("work/file", "work/second"));
  show("work/second");
  step("symlink", symlink("file", "work/soft"));
  step("readlink", readlink("work/soft", buffer, sizeof buffer));
  printf("%.4s\n", buffer);
  step("nofollow", open("work/soft", O_RDONLY | O_NOFOLLOW));
  step("rename", rename("work/file", "work/renamed"));
  show("work/soft");
  step("rmdir of a full one", rmdir("work"));
  step("unlink of a directory", unlink("work"));
  step("open of a directory to write", open("work", O_WRONLY));
  step("open of what is missing", open("work/none", O_RDONLY));
  step("out by a path", open("../../etc/passwd", O_RDONLY));
  step("out by a link", symlink("../../../etc/passwd", "work/out"));
  step("through it", open("work/out", O_RDONLY));
  for (int i = 0; i < 200; i++) {
    char name[40];
    sprintf(name, "work/entry with a long name %03d", i);
    close(open(name, O_CREAT | O_WRONLY, 0666));
  }
  list("work");
  for (int i = 0; i < 200; i++) {
    char name[40];
    sprintf(name, "work/entry with a long name %03d", i);
    if (unlink(name))
      step(name, -1);
  }
  list("work");
  unlink("work/renamed");
  unlink("work/second");
  unlink("work/soft");
  unlink("work/out");
  step("rmdir", rmdir("work"));
  list(".");
  return 0;
}
