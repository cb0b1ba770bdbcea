/* SPDX-License-Identifier: BSD-3-Clause
 *
 * Preloaded into user-mode Linux. It keeps the processor state of its processes in a buffer of a
 * fixed size, which on a processor with AMX is too small: the host gives as much of it as there is
 * room for, but takes only the whole back, and the first process of the guest dies. What UML leaves
 * out is, for programs that do not use it, what the host has.
 */

#define _GNU_SOURCE

#include <dlfcn.h>
#include <elf.h>
#include <stdarg.h>
#include <stdint.h>
#include <string.h>
#include <sys/ptrace.h>
#include <sys/uio.h>

typedef long (*function)(enum __ptrace_request, pid_t, void *, void *);

static uint8_t whole[1 << 14] __attribute__((aligned(64)));

long
ptrace(enum __ptrace_request request, ...)
{
	static function next;
	struct iovec all = {whole, sizeof(whole)}, *part;
	void *addr, *data;
	va_list ap;
	pid_t pid;

	va_start(ap, request);
	pid = va_arg(ap, pid_t);
	addr = va_arg(ap, void *);
	data = va_arg(ap, void *);
	va_end(ap);
	if (next == NULL) {
		void *symbol = dlsym(RTLD_NEXT, "ptrace");

		memcpy(&next, &symbol, sizeof(next));
	}
	if (request != PTRACE_SETREGSET || addr != (void *)NT_X86_XSTATE ||
		next(PTRACE_GETREGSET, pid, addr, &all) != 0)
		return next(request, pid, addr, data);
	part = data;
	if (part->iov_len >= all.iov_len)
		return next(request, pid, addr, data);
	memcpy(whole, part->iov_base, part->iov_len);
	return next(request, pid, addr, &all);
}
