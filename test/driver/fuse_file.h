/* SPDX-License-Identifier: BSD-3-Clause
 * Copyright(c) 2026 the vfn authors
 */

/*
 * A regular file whose operations do what a test wants: a mount of FUSE with nothing but that file,
 * served by a child process, so that neither this process nor the kernel's part of it ever waits
 * for itself. The mount is in a namespace of this process's own, and ends with it.
 */

#ifndef FUSE_FILE_H
#define FUSE_FILE_H

#include <stdbool.h>
#include <stdint.h>

/* Once, before any thread. False: this user, or this kernel, cannot. */
bool fuse_file_init(void);

/* The path of a file of so many bytes, zeroes. Fails the test if it cannot be. */
const char *fuse_file_open(uint64_t size);
void fuse_file_close(void); /* in any state */

/* Operations, as bits. */
#define FUSE_FILE_READ	1u
#define FUSE_FILE_WRITE 2u
#define FUSE_FILE_SYNC	4u /* and writes with RWF_DSYNC, as one */
#define FUSE_FILE_RANGE 8u /* fallocate() */

/* From now on the next n operations of these kinds end with an error, a negative errno. */
void fuse_file_fail(unsigned int ops, int error, unsigned int n);
/* They wait until they are released, but not for more than half a minute. */
void fuse_file_hold(unsigned int ops);
/* Wait until so many do. */
void fuse_file_wait(unsigned int n);
void fuse_file_release(void);
/* The server is gone. */
void fuse_file_kill(void);
/* How many operations of a kind there were. */
unsigned int fuse_file_count(unsigned int op);
/* What is in the file. */
uint8_t *fuse_file_bytes(void);

#endif /* FUSE_FILE_H */
