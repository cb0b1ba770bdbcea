/* SPDX-License-Identifier: BSD-3-Clause
 * Copyright(c) 2026 the vfn authors
 */

/* Memory of a pretended guest. Runs on any one thread. */

#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

#include "mock_link.h"
#include "mock_mem.h"

#ifdef __has_feature
#if __has_feature(address_sanitizer)
#define __SANITIZE_ADDRESS__ 1
#endif
#endif
#ifdef __SANITIZE_ADDRESS__
#include <sanitizer/asan_interface.h>
#else
#define ASAN_POISON_MEMORY_REGION(addr, len)   ((void)(addr), (void)(len))
#define ASAN_UNPOISON_MEMORY_REGION(addr, len) ((void)(addr), (void)(len))
#endif

#define PAGE 4096

static uint64_t
page_up(uint64_t n)
{
	return (n + PAGE - 1) / PAGE * PAGE;
}

/* Memory for a region; *fd is -1, or becomes its file. */
static uint8_t *
block_new(const struct mock_mem *mem, uint64_t iova, uint64_t len, int *fd)
{
	uint64_t total = (iova % PAGE) + len;
	void *block;

	*fd = -1;
	if (mem->files) {
		*fd = memfd_create("mock", MFD_CLOEXEC);
		if (*fd < 0 || ftruncate(*fd, page_up(total)) != 0)
			abort();
		block = mmap(NULL, page_up(total), PROT_READ | PROT_WRITE, MAP_SHARED, *fd, 0);
		return block == MAP_FAILED ? NULL : block;
	}
	if (posix_memalign(&block, PAGE, total > 0 ? total : 1) != 0)
		return NULL;
	memset(block, 0, total);
	return block;
}

static uint8_t *
window_new(uint64_t len)
{
	void *p = mmap(NULL, len, PROT_NONE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);

	return p == MAP_FAILED ? NULL : p;
}

/* Pages that hold nothing else than this region; what is left of them is poisoned. */
static void
window_open(uint8_t *host, uint64_t iova, uint64_t len)
{
	uint8_t *first = host - iova % PAGE;
	uint64_t all = page_up(iova % PAGE + len);

	if (mprotect(first, all, PROT_READ | PROT_WRITE) != 0)
		abort();
	ASAN_POISON_MEMORY_REGION(first, all);
	ASAN_UNPOISON_MEMORY_REGION(host, len);
}

static void
window_shut(uint8_t *host, uint64_t iova, uint64_t len)
{
	uint8_t *first = host - iova % PAGE;
	uint64_t all = page_up(iova % PAGE + len);

	/* The sanitizer does not forget by itself when other memory gets the address. */
	ASAN_UNPOISON_MEMORY_REGION(first, all);
	if (mmap(first, all, PROT_NONE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE | MAP_FIXED, -1,
		    0) != first)
		abort();
}

bool
mock_mem_init(struct mock_mem *mem, enum vringh_mem_kind kind, uint64_t iova, uint64_t len,
	struct mock_link *link)
{
	*mem = (struct mock_mem){.view.kind = kind, .link = link};
	mem->view.table = mem->table;
	mem->view.max_regions = MOCK_MAX_REGIONS;
	if (kind == VRINGH_MEM_DIRECT)
		mem->window = (struct vringh_region){
			.iova = iova, .len = len, .host = window_new(len), .perm = VRINGH_PERM_RW};
	return mem->window.len == 0 || mem->window.host != NULL;
}

uint8_t *
mock_mem_add(struct mock_mem *mem, uint64_t iova, uint64_t len, uint32_t perm)
{
	uint32_t i = 0, behind;
	uint8_t *block = NULL, *host, *device;
	int fd = -1;

	while (i < mem->nb_regions && mem->region[i].iova < iova)
		i++;
	if (mem->nb_regions == MOCK_MAX_REGIONS ||
		(i < mem->nb_regions && mem->region[i].iova - iova < len) ||
		(i > 0 && iova - mem->region[i - 1].iova < mem->region[i - 1].len))
		return NULL;
	if (mem->window.len > 0) {
		uint64_t off = iova - mem->window.iova;

		if (off >= mem->window.len || page_up(off + len) > mem->window.len)
			return NULL;
		host = mem->window.host + off;
		window_open(host, iova, len);
	} else {
		block = block_new(mem, iova, len, &fd);
		if (block == NULL)
			return NULL;
		host = block + iova % PAGE;
	}
	device = mem->link != NULL ? mock_link_add(mem->link, iova, host, len) : host;
	if (device == NULL)
		abort();
	behind = mem->nb_regions - i;
	memmove(&mem->region[i + 1], &mem->region[i], behind * sizeof(mem->region[0]));
	memmove(&mem->block[i + 1], &mem->block[i], behind * sizeof(mem->block[0]));
	memmove(&mem->device[i + 1], &mem->device[i], behind * sizeof(mem->device[0]));
	memmove(&mem->fd[i + 1], &mem->fd[i], behind * sizeof(mem->fd[0]));
	mem->block[i] = block;
	mem->fd[i] = fd;
	mem->device[i] = device;
	mem->region[i] =
		(struct vringh_region){.iova = iova, .len = len, .host = host, .perm = perm};
	mem->nb_regions++;
	return host;
}

static void
let_go(struct mock_mem *mem, uint32_t i)
{
	struct vringh_region *r = &mem->region[i];

	if (mem->link != NULL)
		mock_link_remove(mem->link, mem->device[i]);
	if (mem->window.len > 0)
		window_shut(r->host, r->iova, r->len);
	else if (mem->fd[i] < 0)
		free(mem->block[i]);
	else if (munmap(mem->block[i], page_up(r->iova % PAGE + r->len)) != 0 ||
		close(mem->fd[i]) != 0)
		abort();
}

void
mock_mem_remove(struct mock_mem *mem, uint64_t iova)
{
	uint32_t i, behind;

	for (i = 0; i < mem->nb_regions; i++) {
		if (mem->region[i].iova != iova)
			continue;
		let_go(mem, i);
		behind = --mem->nb_regions - i;
		memmove(&mem->region[i], &mem->region[i + 1], behind * sizeof(mem->region[0]));
		memmove(&mem->block[i], &mem->block[i + 1], behind * sizeof(mem->block[0]));
		memmove(&mem->fd[i], &mem->fd[i + 1], behind * sizeof(mem->fd[0]));
		memmove(&mem->device[i], &mem->device[i + 1], behind * sizeof(mem->device[0]));
		return;
	}
}

void
mock_mem_permit(struct mock_mem *mem, uint64_t iova, uint32_t perm)
{
	uint32_t i;

	for (i = 0; i < mem->nb_regions; i++)
		if (mem->region[i].iova == iova)
			mem->region[i].perm = perm;
}

void
mock_mem_move(struct mock_mem *mem)
{
	struct vringh_region old = mem->window;
	uint32_t i;

	if (old.len > 0 && (mem->window.host = window_new(old.len)) == NULL)
		abort();
	for (i = 0; i < mem->nb_regions; i++) {
		struct vringh_region *r = &mem->region[i];
		uint8_t *block = NULL, *host, *device;
		int fd = -1;

		if (old.len > 0) {
			host = mem->window.host + (r->iova - old.iova);
			window_open(host, r->iova, r->len);
		} else {
			block = block_new(mem, r->iova, r->len, &fd);
			if (block == NULL)
				abort();
			host = block + r->iova % PAGE;
		}
		memcpy(host, r->host, r->len);
		device = mem->link != NULL ? mock_link_add(mem->link, r->iova, host, r->len) : host;
		if (device == NULL)
			abort();
		memset(r->host, 0xa5, r->len);
		let_go(mem, i);
		mem->block[i] = block;
		mem->fd[i] = fd;
		mem->device[i] = device;
		r->host = host;
	}
	if (old.len > 0)
		munmap(old.host, old.len);
}

/* Region of an address, and the longest piece there, at most *len. */
static uint32_t
piece(const struct mock_mem *mem, uint64_t iova, uint64_t *len)
{
	uint32_t i;

	for (i = 0; i < mem->nb_regions; i++) {
		const struct vringh_region *r = &mem->region[i];
		uint64_t off = iova - r->iova;

		if (off >= r->len)
			continue;
		if (*len > r->len - off)
			*len = r->len - off;
		break;
	}
	return i;
}

int
mock_mem_fd(const struct mock_mem *mem, uint64_t iova, uint64_t *offset)
{
	uint32_t i;

	*offset = iova % PAGE;
	for (i = 0; i < mem->nb_regions; i++)
		if (mem->region[i].iova == iova)
			return mem->fd[i];
	return -1;
}

uint8_t *
mock_mem_at(const struct mock_mem *mem, uint64_t iova, uint64_t len)
{
	uint64_t n = len;
	uint32_t i = piece(mem, iova, &n);

	return i == mem->nb_regions || n < len ? NULL :
						 mem->region[i].host + (iova - mem->region[i].iova);
}

uint8_t *
mock_mem_device_at(const struct mock_mem *mem, uint64_t iova, uint64_t len)
{
	uint64_t n = len;
	uint32_t i = piece(mem, iova, &n);

	return i == mem->nb_regions || n < len ? NULL :
						 mem->device[i] + (iova - mem->region[i].iova);
}

bool
mock_mem_write(struct mock_mem *mem, uint64_t iova, const void *src, uint64_t len)
{
	const uint8_t *from = src;

	while (len > 0) {
		uint64_t n = len;
		uint32_t i = piece(mem, iova, &n);
		uint8_t *host;

		if (i == mem->nb_regions)
			return false;
		host = mem->region[i].host + (iova - mem->region[i].iova);
		memcpy(host, from, n);
		if (mem->link != NULL)
			mock_link_wrote(mem->link, host, n);
		iova += n;
		from += n;
		len -= n;
	}
	return true;
}

bool
mock_mem_read(const struct mock_mem *mem, uint64_t iova, void *dst, uint64_t len)
{
	uint8_t *to = dst;

	while (len > 0) {
		uint64_t n = len;
		uint32_t i = piece(mem, iova, &n);

		if (i == mem->nb_regions)
			return false;
		memcpy(to, mem->region[i].host + (iova - mem->region[i].iova), n);
		iova += n;
		to += n;
		len -= n;
	}
	return true;
}

static struct vringh_region
shown(const struct mock_mem *mem, uint32_t i)
{
	struct vringh_region r = mem->region[i];

	r.host = mem->device[i];
	r.dirty = r.iova + mem->dirty_shift;
	return r;
}

struct vringh_region
mock_mem_region(const struct mock_mem *mem, uint64_t iova)
{
	uint64_t n = 1;

	return shown(mem, piece(mem, iova, &n));
}

struct vringh_mem *
mock_mem_view(struct mock_mem *mem)
{
	struct vringh_mem *view = &mem->view;
	uint32_t i;

	if (view->table == NULL) { /* all zeros */
		view->table = mem->table;
		view->kind = VRINGH_MEM_REGION;
	}
	if (view->kind == VRINGH_MEM_IOTLB) {
		vringh_iotlb_unmap(view, 0, 0);
		for (i = 0; i < mem->nb_regions; i++) {
			struct vringh_region r = shown(mem, i);

			if (vringh_iotlb_map(view, &r) != 0)
				abort();
		}
		return view;
	}
	view->nb_regions = mem->nb_regions;
	for (i = 0; i < mem->nb_regions; i++)
		mem->table[i] = shown(mem, i);
	if (mem->window.len > 0) {
		view->nb_regions = 1;
		mem->table[0] = mem->window;
	}
	if (view->kind == VRINGH_MEM_IOMEM)
		view->io = mem->link != NULL ? mock_link_io(mem->link) : NULL;
	return view;
}

void
mock_mem_free(struct mock_mem *mem)
{
	while (mem->nb_regions > 0)
		let_go(mem, --mem->nb_regions);
	if (mem->window.len > 0)
		munmap(mem->window.host, mem->window.len);
	mem->window.len = 0;
}
