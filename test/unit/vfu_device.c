/* SPDX-License-Identifier: BSD-3-Clause
 *
 * The device of the tests of lib/vfio_user, see vfu_device.h.
 */

#include <fcntl.h>
#include <sys/eventfd.h>
#include <sys/mman.h>
#include <unistd.h>

#include "vfu_device.h"

static int
failure(struct vfu_dev *dev)
{
	int ret = dev->fail;

	dev->fail = 0;
	return ret;
}

static void
no_interrupt(struct vfu_dev *dev)
{
	unsigned int i, k;

	for (i = 0; i < VD_NB_IRQS; i++)
		for (k = 0; k < VD_NB_MSIX; k++) {
			if (dev->irq_fd[i][k] >= 0)
				close(dev->irq_fd[i][k]);
			dev->irq_fd[i][k] = -1;
		}
	if (dev->unmask_fd >= 0)
		close(dev->unmask_fd);
	dev->unmask_fd = -1;
	dev->masked = false;
}

static void
attached(void *device)
{
	struct vfu_dev *dev = device;

	MUST(dev->attached == dev->detached);
	MUST(dev->nb_maps == 0 && !dev->logging);
	dev->state = VFIO_DEVICE_STATE_RUNNING;
	dev->attached++;
}

static void
detached(void *device)
{
	struct vfu_dev *dev = device;

	MUST(dev->attached == dev->detached + 1);
	while (dev->nb_maps > 0)
		if (dev->map[--dev->nb_maps].fd >= 0)
			close(dev->map[dev->nb_maps].fd);
	no_interrupt(dev);
	dev->logging = false;
	dev->detached++;
}

static void
region(void *device, unsigned int index, struct vfu_region *r)
{
	struct vfu_dev *dev = device;

	MUST(index < VD_NB_REGIONS && r->fd == -1 && r->size == 0);
	if (index == VD_NONE)
		return;
	r->flags = VFIO_REGION_INFO_FLAG_READ;
	if (index != VD_READONLY)
		r->flags |= VFIO_REGION_INFO_FLAG_WRITE;
	switch (index) {
	case VD_REGS:
		r->size = VD_REGS_SIZE;
		break;
	case VD_READONLY:
		r->size = VD_READONLY_SIZE;
		break;
	case VD_WHOLE:
		r->size = VD_WHOLE_SIZE;
		r->fd = dev->whole_fd;
		r->offset = 0x1000;
		break;
	default:
		r->size = VD_SPARSE_SIZE;
		r->fd = dev->sparse_fd;
		r->nb_areas = 2;
		r->area[0].offset = 0x1000;
		r->area[0].size = 0x1000;
		r->area[1].offset = 0x3000;
		r->area[1].size = 0x1000;
		break;
	}
}

static int
ioeventfds(void *device, unsigned int index, struct vfu_ioeventfd *fds)
{
	struct vfu_dev *dev = device;
	unsigned int i;
	int ret = failure(dev);

	MUST(index < VD_NB_REGIONS);
	if (ret < 0 || index != VD_SPARSE)
		return ret;
	for (i = 0; i < VD_NB_IOEVENTFDS; i++)
		fds[i] = (struct vfu_ioeventfd){i * 4, i == 0 ? 0 : 2, dev->ioeventfd[i]};
	return VD_NB_IOEVENTFDS;
}

static uint32_t
irqs(void *device, unsigned int index, uint32_t *flags)
{
	(void)device;
	MUST(index < VD_NB_IRQS);
	if (index == VD_INTX) {
		*flags = VFIO_IRQ_INFO_EVENTFD | VFIO_IRQ_INFO_MASKABLE | VFIO_IRQ_INFO_AUTOMASKED;
		return 1;
	}
	if (index == VD_MSIX) {
		*flags = VFIO_IRQ_INFO_EVENTFD | VFIO_IRQ_INFO_NORESIZE;
		return VD_NB_MSIX;
	}
	return 0;
}

static uint8_t *
bytes_of(struct vfu_dev *dev, unsigned int index, uint64_t offset, size_t len)
{
	static const uint64_t size[] = {
		VD_REGS_SIZE, VD_SPARSE_SIZE, VD_WHOLE_SIZE, VD_READONLY_SIZE, 0};
	uint8_t *const bytes[] = {dev->regs, dev->sparse, dev->whole + 0x1000, dev->readonly, NULL};

	MUST(index < VD_NB_REGIONS && len > 0 && len <= VFU_MAX_XFER);
	MUST(offset < size[index] && len <= size[index] - offset);
	return bytes[index] + offset;
}

static int
read_region(void *device, unsigned int index, uint64_t offset, void *buf, size_t len)
{
	struct vfu_dev *dev = device;
	int ret = failure(dev);

	if (ret < 0)
		return ret;
	dev->reads++;
	memcpy(buf, bytes_of(dev, index, offset, len), len);
	return 0;
}

/* The device's own access to memory. */
static void
go(struct vfu_dev *dev, uint8_t how)
{
	uint64_t address, len;
	int64_t result = -EINVAL;

	memcpy(&address, dev->regs + VD_REG_ADDRESS, sizeof(address));
	memcpy(&len, dev->regs + VD_REG_LEN, sizeof(len));
	if (len <= VD_DATA_SIZE && how == 1)
		result = vfu_server_dma_read(dev->server, address, dev->regs + VD_DATA, len);
	if (len <= VD_DATA_SIZE && how == 2)
		result = vfu_server_dma_write(dev->server, address, dev->regs + VD_DATA, len);
	memcpy(dev->regs + VD_REG_RESULT, &result, sizeof(result));
}

static int
write_region(void *device, unsigned int index, uint64_t offset, const void *buf, size_t len)
{
	struct vfu_dev *dev = device;
	int ret = failure(dev);

	MUST(index != VD_READONLY);
	if (ret < 0)
		return ret;
	dev->writes++;
	memcpy(bytes_of(dev, index, offset, len), buf, len);
	if (index == VD_REGS && offset == VD_REG_GO && len == 1)
		go(dev, *(const uint8_t *)buf);
	return 0;
}

static int
dma_map(void *device, const struct vfu_dma *dma)
{
	struct vfu_dev *dev = device;
	uint64_t last = dma->address + (dma->size - 1);
	int ret = failure(dev);
	unsigned int i;

	MUST(dma->size > 0 && last >= dma->address);
	MUST(dma->flags != 0 &&
		(dma->flags & ~(VFIO_DMA_MAP_FLAG_READ | VFIO_DMA_MAP_FLAG_WRITE)) == 0);
	MUST(dma->fd < 0 || fcntl(dma->fd, F_GETFD) == FD_CLOEXEC);
	for (i = 0; i < dev->nb_maps; i++)
		MUST(last < dev->map[i].address ||
			dev->map[i].address + (dev->map[i].size - 1) < dma->address);
	if (ret < 0)
		return ret;
	if (dev->dma_most != 0 && dma->size > dev->dma_most)
		return -ENOMEM;
	MUST(dev->nb_maps < VFU_MAX_MAPS);
	dev->map[dev->nb_maps] = *dma;
	if (dma->fd >= 0)
		dev->map[dev->nb_maps].fd = fcntl(dma->fd, F_DUPFD_CLOEXEC, 0);
	dev->nb_maps++;
	dev->maps++;
	return 0;
}

static int
dma_unmap(void *device, const struct vfu_dma *dma)
{
	struct vfu_dev *dev = device;
	int ret = failure(dev);
	unsigned int i;

	for (i = 0; i < dev->nb_maps; i++)
		if (dev->map[i].address == dma->address)
			break;
	MUST(i < dev->nb_maps && dev->map[i].size == dma->size);
	MUST(dev->map[i].flags == dma->flags && dev->map[i].offset == dma->offset);
	if (ret < 0)
		return ret;
	if (dev->map[i].fd >= 0)
		close(dev->map[i].fd);
	dev->map[i] = dev->map[--dev->nb_maps];
	dev->unmaps++;
	return 0;
}

static void
must_be_irq(unsigned int index, unsigned int irq)
{
	MUST((index == VD_INTX && irq == 0) || (index == VD_MSIX && irq < VD_NB_MSIX));
}

static void
keep(int *mine, int fd)
{
	if (*mine >= 0)
		close(*mine);
	*mine = fd >= 0 ? fcntl(fd, F_DUPFD_CLOEXEC, 0) : -1;
}

static int
irq_fd(void *device, unsigned int index, unsigned int irq, int fd)
{
	struct vfu_dev *dev = device;
	int ret = fd >= 0 ? failure(dev) : 0;

	must_be_irq(index, irq);
	if (ret == 0)
		keep(&dev->irq_fd[index][irq], fd);
	return ret;
}

static int
irq_unmask_fd(void *device, unsigned int index, unsigned int irq, int fd)
{
	struct vfu_dev *dev = device;
	int ret = failure(dev);

	MUST(index == VD_INTX && irq == 0);
	if (ret == 0)
		keep(&dev->unmask_fd, fd);
	return ret;
}

static int
irq_mask(void *device, unsigned int index, unsigned int irq, bool mask)
{
	struct vfu_dev *dev = device;
	int ret = failure(dev);

	MUST(index == VD_INTX && irq == 0);
	if (ret == 0)
		dev->masked = mask;
	return ret;
}

static int
irq_trigger(void *device, unsigned int index, unsigned int irq)
{
	struct vfu_dev *dev = device;
	int ret = failure(dev);

	must_be_irq(index, irq);
	if (ret < 0)
		return ret;
	dev->triggers[irq]++;
	if (dev->irq_fd[index][irq] >= 0)
		eventfd_write(dev->irq_fd[index][irq], 1);
	return 0;
}

static int
reset(void *device)
{
	struct vfu_dev *dev = device;
	int ret = failure(dev);

	dev->state = VFIO_DEVICE_STATE_ERROR;
	if (ret < 0)
		return ret;
	dev->resets++;
	dev->state = VFIO_DEVICE_STATE_RUNNING;
	memset(dev->regs, 0, VD_REGS_SIZE);
	return 0;
}

static int
migrate(void *device, enum vfio_device_mig_state from, enum vfio_device_mig_state to)
{
	static const enum vfio_device_mig_state arc[][2] = {
		{VFIO_DEVICE_STATE_RUNNING, VFIO_DEVICE_STATE_STOP},
		{VFIO_DEVICE_STATE_STOP, VFIO_DEVICE_STATE_RUNNING},
		{VFIO_DEVICE_STATE_STOP, VFIO_DEVICE_STATE_STOP_COPY},
		{VFIO_DEVICE_STATE_STOP_COPY, VFIO_DEVICE_STATE_STOP},
		{VFIO_DEVICE_STATE_STOP, VFIO_DEVICE_STATE_RESUMING},
		{VFIO_DEVICE_STATE_RESUMING, VFIO_DEVICE_STATE_STOP},
	};
	struct vfu_dev *dev = device;
	int ret = failure(dev);
	unsigned int i;

	MUST(dev->state == from);
	for (i = 0; i < sizeof(arc) / sizeof(arc[0]); i++)
		if (arc[i][0] == from && arc[i][1] == to)
			break;
	MUST(i < sizeof(arc) / sizeof(arc[0]));
	dev->state = ret == 0 ? to : ret == -EIO ? VFIO_DEVICE_STATE_ERROR : from;
	dev->state_at = 0;
	dev->moves += ret == 0;
	return ret;
}

static ssize_t
state_read(void *device, void *buf, size_t len)
{
	struct vfu_dev *dev = device;
	int ret = failure(dev);

	MUST(dev->state == VFIO_DEVICE_STATE_STOP_COPY && len <= VFU_MAX_XFER);
	if (ret < 0)
		return ret;
	if (len > VD_STATE_SIZE - dev->state_at)
		len = VD_STATE_SIZE - dev->state_at;
	memcpy(buf, dev->saved + dev->state_at, len);
	dev->state_at += len;
	return len;
}

static int
state_write(void *device, const void *buf, size_t len)
{
	struct vfu_dev *dev = device;
	int ret = failure(dev);

	MUST(dev->state == VFIO_DEVICE_STATE_RESUMING && len <= VFU_MAX_XFER);
	if (ret < 0)
		return ret;
	if (len > VD_STATE_SIZE - dev->state_at)
		return -EFBIG;
	memcpy(dev->saved + dev->state_at, buf, len);
	dev->state_at += len;
	return 0;
}

static int
log_start(void *device, uint64_t *page_size, const struct vfu_log_range *ranges,
	unsigned int nb_ranges)
{
	struct vfu_dev *dev = device;
	int ret = failure(dev);
	unsigned int i;

	MUST(!dev->logging && nb_ranges <= VFU_MAX_MAPS);
	MUST(*page_size != 0 && (*page_size & (*page_size - 1)) == 0);
	for (i = 0; i < nb_ranges; i++)
		MUST(ranges[i].length > 0 &&
			ranges[i].iova + (ranges[i].length - 1) >= ranges[i].iova);
	if (ret < 0)
		return ret;
	if (*page_size < 4096)
		*page_size = 4096;
	dev->log_page = *page_size;
	if (nb_ranges > 0)
		memcpy(dev->log_range, ranges, nb_ranges * sizeof(*ranges));
	dev->nb_log_ranges = nb_ranges;
	dev->logging = true;
	return 0;
}

static int
log_stop(void *device)
{
	struct vfu_dev *dev = device;
	int ret = failure(dev);

	MUST(dev->logging);
	if (ret == 0)
		dev->logging = false;
	return ret;
}

static int
log_report(void *device, uint64_t iova, uint64_t length, uint64_t page_size, uint64_t *bitmap)
{
	struct vfu_dev *dev = device;
	uint64_t pages, i;
	int ret = failure(dev);

	MUST(dev->logging && length > 0 && iova + (length - 1) >= iova);
	MUST(page_size != 0 && (page_size & (page_size - 1)) == 0);
	pages = (length - 1) / page_size + 1;
	MUST(pages <= VFU_MAX_XFER * UINT64_C(8));
	for (i = 0; i < (pages + 63) / 64; i++)
		MUST(bitmap[i] == 0);
	if (ret < 0)
		return ret;
	if (dev->dirty != 0 && dev->dirty - iova < length) {
		i = (dev->dirty - iova) / page_size;
		bitmap[i / 64] |= UINT64_C(1) << i % 64;
		dev->dirty = 0;
	}
	return 0;
}

static void
log_line(void *device, bool error, const char *text)
{
	struct vfu_dev *dev = device;

	(void)error;
	MUST(strchr(text, '\n') == NULL);
	if (getenv("VFU_TRACE") != NULL)
		fprintf(stderr, "# %s\n", text);
	pthread_mutex_lock(&dev->lock);
	snprintf(dev->line[dev->nb_lines++ % VD_MAX_LINES], sizeof(dev->line[0]), "%s", text);
	pthread_mutex_unlock(&dev->lock);
}

static int
shared(size_t size, uint8_t **bytes)
{
	int fd = memfd_create("vfu_device", MFD_CLOEXEC);

	MUST(fd >= 0 && ftruncate(fd, size) == 0);
	*bytes = mmap(NULL, size, PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0);
	MUST(*bytes != MAP_FAILED);
	return fd;
}

void
vd_open(struct vfu_dev *dev, unsigned int without)
{
	struct vfu_device device = {
		.ops = &dev->ops, .priv = dev, .nb_regions = VD_NB_REGIONS, .nb_irqs = VD_NB_IRQS};
	unsigned int i;

	memset(dev, 0, sizeof(*dev));
	memset(dev->irq_fd, 0xff, sizeof(dev->irq_fd));
	dev->unmask_fd = -1;
	dev->without = without;
	pthread_mutex_init(&dev->lock, NULL);
	dev->regs = calloc(1, VD_REGS_SIZE);
	dev->saved = malloc(VD_STATE_SIZE);
	MUST(dev->regs != NULL && dev->saved != NULL);
	for (i = 0; i < VD_STATE_SIZE; i++)
		dev->saved[i] = i * 7 + i / 256;
	for (i = 0; i < VD_READONLY_SIZE; i++)
		dev->readonly[i] = i;
	dev->sparse_fd = shared(VD_SPARSE_SIZE, &dev->sparse);
	dev->whole_fd = shared(0x1000 + VD_WHOLE_SIZE, &dev->whole);
	for (i = 0; i < VD_NB_IOEVENTFDS; i++)
		dev->ioeventfd[i] = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK);
	dev->ops = (struct vfu_device_ops){
		.attached = attached,
		.detached = detached,
		.region = region,
		.irqs = irqs,
		.read = read_region,
		.write = write_region,
		.dma_map = dma_map,
		.dma_unmap = dma_unmap,
		.irq_fd = irq_fd,
		.reset = reset,
		.log = log_line,
	};
	if (!(without & VD_NO_IOEVENTFDS))
		dev->ops.ioeventfds = ioeventfds;
	if (!(without & VD_NO_MASK)) {
		dev->ops.irq_mask = irq_mask;
		dev->ops.irq_unmask_fd = irq_unmask_fd;
		dev->ops.irq_trigger = irq_trigger;
	}
	if (!(without & VD_NO_MIGRATION)) {
		dev->ops.migrate = migrate;
		dev->ops.state_read = state_read;
		dev->ops.state_write = state_write;
	}
	if (!(without & VD_NO_LOG)) {
		dev->ops.log_start = log_start;
		dev->ops.log_stop = log_stop;
		dev->ops.log_report = log_report;
	}
	dev->server = vfu_server_new(&device);
	MUST(dev->server != NULL);
}

void
vd_close(struct vfu_dev *dev)
{
	unsigned int i;

	MUST(dev->attached == dev->detached && dev->nb_maps == 0);
	vfu_server_free(dev->server);
	no_interrupt(dev);
	munmap(dev->sparse, VD_SPARSE_SIZE);
	munmap(dev->whole, 0x1000 + VD_WHOLE_SIZE);
	close(dev->sparse_fd);
	close(dev->whole_fd);
	for (i = 0; i < VD_NB_IOEVENTFDS; i++)
		close(dev->ioeventfd[i]);
	free(dev->regs);
	free(dev->saved);
	pthread_mutex_destroy(&dev->lock);
}
