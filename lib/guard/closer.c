/* SPDX-License-Identifier: BSD-3-Clause
 * Copyright(c) 2026 the vfn authors
 */

/* Descriptors that strangers hand over. On any thread, but for "vfn-close". */

#include "vfn_closer.h"

#include <pthread.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

/* The name in /proc is the kernel's word. */
bool
vfn_is_event(int fd)
{
	char path[64], name[64];
	ssize_t n;

	snprintf(path, sizeof(path), "/proc/self/fd/%d", fd);
	n = readlink(path, name, sizeof(name) - 1);
	name[n > 0 ? n : 0] = '\0';
	return strcmp(name, "anon_inode:[eventfd]") == 0 || strncmp(name, "pipe:[", 6) == 0;
}

struct closing {
	struct closing *next;
	int fd;
};

struct vfn_closer {
	pthread_mutex_t lock;
	struct closing *first, **last;
	unsigned int waiting;
	bool runs;
	bool orphan; /* the thread frees it */
};

struct vfn_closer *
vfn_closer_new(void)
{
	struct vfn_closer *c = calloc(1, sizeof(*c));

	if (c == NULL)
		return NULL;
	pthread_mutex_init(&c->lock, NULL);
	c->last = &c->first;
	return c;
}

static void
free_closer(struct vfn_closer *c)
{
	pthread_mutex_destroy(&c->lock);
	free(c);
}

static void *
run_closer(void *arg)
{
	struct vfn_closer *c = arg;
	struct closing *one;
	bool orphan;

	pthread_setname_np(pthread_self(), "vfn-close");
	pthread_mutex_lock(&c->lock);
	while ((one = c->first) != NULL) {
		c->first = one->next;
		if (c->first == NULL)
			c->last = &c->first;
		pthread_mutex_unlock(&c->lock);
		close(one->fd);
		free(one);
		pthread_mutex_lock(&c->lock);
		c->waiting--;
	}
	c->runs = false;
	orphan = c->orphan;
	pthread_mutex_unlock(&c->lock);
	if (orphan)
		free_closer(c);
	return NULL;
}

/* Locked. What cannot be started now is when the next descriptor comes. */
static void
start_closer(struct vfn_closer *c)
{
	sigset_t all, old;
	pthread_t thread;

	sigfillset(&all);
	pthread_sigmask(SIG_BLOCK, &all, &old);
	c->runs = pthread_create(&thread, NULL, run_closer, c) == 0;
	pthread_sigmask(SIG_SETMASK, &old, NULL);
	if (c->runs)
		pthread_detach(thread);
}

void
vfn_closer_free(struct vfn_closer *c)
{
	bool runs;

	if (c == NULL)
		return;
	pthread_mutex_lock(&c->lock);
	if (!c->runs && c->first != NULL)
		start_closer(c);
	c->orphan = true;
	runs = c->runs;
	pthread_mutex_unlock(&c->lock);
	if (!runs)
		free_closer(c);
}

unsigned int
vfn_closer_waiting(struct vfn_closer *c)
{
	unsigned int n;

	pthread_mutex_lock(&c->lock);
	n = c->waiting;
	pthread_mutex_unlock(&c->lock);
	return n;
}

void
vfn_close_later(struct vfn_closer *c, int fd)
{
	struct closing *one;

	one = malloc(sizeof(*one));
	if (one == NULL) {
		close(fd);
		return;
	}
	*one = (struct closing){NULL, fd};
	pthread_mutex_lock(&c->lock);
	*c->last = one;
	c->last = &one->next;
	c->waiting++;
	if (!c->runs)
		start_closer(c);
	pthread_mutex_unlock(&c->lock);
}
