// SPDX-License-Identifier: GPL-2.0-only OR MIT
/* env.h over kernel primitives: what is too long for env_kernel.h */
#include <linux/completion.h>
#include <linux/delay.h>
#include <linux/dma-mapping.h>
#include <linux/hash.h>
#include <linux/jiffies.h>
#include <linux/kthread.h>
#include <linux/log2.h>
#include <linux/list.h>
#include <linux/mm.h>
#include <linux/mutex.h>
#include <linux/printk.h>
#include <linux/sched/task.h>
#include <linux/sizes.h>
#include <linux/slab.h>
#include <linux/spinlock.h>
#include <linux/vmalloc.h>

#include "env/env.h"

/*
 * Sizes come from programs: what they cause is charged to them, too much is refused, without a
 * warning and without a victim of the OOM killer.
 */
#define GFP_ASKED (GFP_KERNEL_ACCOUNT | __GFP_NOWARN | __GFP_RETRY_MAYFAIL)

/* in front of every object; keeps the object aligned to 64 bytes */
struct header {
	size_t size;
} __aligned(64);

static atomic_long_t alloc_bytes = ATOMIC_LONG_INIT(0);
static atomic64_t fail_countdown = ATOMIC64_INIT(0);

static bool fails(void)
{
	return atomic64_read(&fail_countdown) && !atomic64_dec_return(&fail_countdown);
}

void env_fail_alloc(uint64_t nth)
{
	atomic64_set(&fail_countdown, nth);
}

void *env_alloc(size_t size)
{
	size_t total = size + sizeof(struct header);
	struct header *h;

	if (size > SIZE_MAX / 2 || fails())
		return NULL;
	/* powers of two are aligned to themselves; larger than a page is so anyway */
	h = kvzalloc(total < PAGE_SIZE ? roundup_pow_of_two(total) : total, GFP_ASKED);
	if (!h)
		return NULL;
	h->size = total;
	atomic_long_add(total, &alloc_bytes);
	return h + 1;
}

void env_free(void *p)
{
	struct header *h = (struct header *)p - 1;

	if (!p)
		return;
	atomic_long_sub(h->size, &alloc_bytes);
	kvfree(h);
}

size_t env_alloc_bytes(void)
{
	return atomic_long_read(&alloc_bytes);
}

/* a large range, and where it begins: the allocator knows no alignment */
struct aligned_range {
	struct list_head link;
	void *p, *base;
};
static LIST_HEAD(aligned_ranges);
static DEFINE_MUTEX(aligned_lock);

static void *alloc_aligned(size_t bytes)
{
	struct aligned_range *r = kmalloc(sizeof(*r), GFP_KERNEL);

	if (!r)
		return NULL;
	r->base = __vmalloc(bytes + SZ_2M - PAGE_SIZE, GFP_ASKED | __GFP_ZERO);
	if (!r->base) {
		kfree(r);
		return NULL;
	}
	r->p = PTR_ALIGN(r->base, SZ_2M);
	mutex_lock(&aligned_lock);
	list_add(&r->link, &aligned_ranges);
	mutex_unlock(&aligned_lock);
	return r->p;
}

static void free_aligned(void *p)
{
	struct aligned_range *r;

	mutex_lock(&aligned_lock);
	list_for_each_entry(r, &aligned_ranges, link) if (r->p == p) break;
	list_del(&r->link);
	mutex_unlock(&aligned_lock);
	vfree(r->base);
	kfree(r);
}

void *env_pages_alloc(size_t bytes)
{
	if (bytes > 1UL << 47)
		return NULL;
	return bytes >= SZ_2M ? alloc_aligned(bytes) : __vmalloc(bytes, GFP_ASKED | __GFP_ZERO);
}

void env_pages_free(void *p, size_t bytes)
{
	if (p && bytes >= SZ_2M)
		free_aligned(p);
	else
		vfree(p);
}

static enum dma_data_direction dma_dir(bool to_device)
{
	return to_device ? DMA_TO_DEVICE : DMA_FROM_DEVICE;
}

int env_dma_map(void *dma_device, void *p, size_t len, bool to_device, uint64_t *ret_addr)
{
	dma_addr_t addr;

	if (!dma_device) {
		*ret_addr = (uintptr_t)p;
		return 0;
	}
	if (is_vmalloc_addr(p)) {
		env_assert(offset_in_page(p) + len <= PAGE_SIZE);
		addr = dma_map_page(dma_device, vmalloc_to_page(p), offset_in_page(p), len,
				    dma_dir(to_device));
	} else {
		addr = dma_map_single(dma_device, p, len, dma_dir(to_device));
	}
	if (dma_mapping_error(dma_device, addr))
		return -ENOMEM;
	*ret_addr = addr;
	return 0;
}

void env_dma_unmap(void *dma_device, uint64_t addr, size_t len, bool to_device)
{
	if (dma_device) /* a single one and a page are unmapped alike */
		dma_unmap_page(dma_device, addr, len, dma_dir(to_device));
}

size_t env_dma_max(void *dma_device)
{
	size_t max = dma_device ? dma_max_mapping_size(dma_device) : SIZE_MAX;

	return max & PAGE_MASK;
}

bool env_cond_wait(struct env_cond *c, struct env_mutex *m, uint64_t timeout_ns)
{
	long left = MAX_SCHEDULE_TIMEOUT;
	DEFINE_WAIT(wait);

	if (timeout_ns != ENV_FOREVER)
		left = min_t(u64, nsecs_to_jiffies64(timeout_ns) + 1, MAX_SCHEDULE_TIMEOUT - 1);
	/* on the queue before the mutex is let go of: a wake after that is not missed */
	prepare_to_wait(&c->wq, &wait, TASK_IDLE);
	mutex_unlock(&m->m);
	left = schedule_timeout(left);
	finish_wait(&c->wq, &wait);
	mutex_lock(&m->m);
	return left > 0;
}

struct env_thread {
	struct task_struct *task;
	struct completion done;
	void (*fn)(void *);
	void *arg;
};

static int thread_main(void *p)
{
	struct env_thread *t = p;

	t->fn(t->arg);
	complete(&t->done);
	return 0;
}

int env_thread_create(struct env_thread **ret_t, const char *name, void (*fn)(void *), void *arg)
{
	struct env_thread *t = env_alloc(sizeof(*t));
	int err;

	if (!t)
		return -ENOMEM;
	t->fn = fn;
	t->arg = arg;
	init_completion(&t->done);
	t->task = kthread_create(thread_main, t, "balun/%s", name);
	if (IS_ERR(t->task)) {
		err = PTR_ERR(t->task);
		goto err_free_thread;
	}
	/* kthread_stop() may come after it has ended */
	get_task_struct(t->task);
	*ret_t = t;
	wake_up_process(t->task);
	return 0;

err_free_thread:
	env_free(t);
	return err;
}

/* kthread_stop() alone would keep a thread that has not begun from running @fn at all. */
void env_thread_join(struct env_thread *t)
{
	if (!t)
		return;
	wait_for_completion(&t->done);
	kthread_stop(t->task);
	put_task_struct(t->task);
	env_free(t);
}

void env_sleep_ns(uint64_t ns)
{
	fsleep(DIV_ROUND_UP_ULL(ns, 1000));
}

void env_log(int level, const char *fmt, ...)
{
	static const char *const prefix[] = { KERN_NOTICE, KERN_ERR, KERN_WARNING, KERN_INFO,
					      KERN_DEBUG };
	struct va_format vaf;
	va_list ap;

	va_start(ap, fmt);
	vaf.fmt = fmt;
	vaf.va = &ap;
	printk("%sbalun: %pV\n", prefix[clamp(level, -1, 3) + 1], &vaf);
	va_end(ap);
}

/* few at a time: calls that programs make at this moment */
static struct hlist_head reasons[64];
static DEFINE_SPINLOCK(reasons_lock);

static struct hlist_head *reasons_of(struct task_struct *task)
{
	return &reasons[hash_ptr(task, ilog2(ARRAY_SIZE(reasons)))];
}

/* this task's, which nobody else takes away */
static struct env_reason_text *reason_here(void)
{
	struct env_reason_text *r;

	/* an interrupt borrows the task, and has no reasons of its own */
	if (!in_task())
		return NULL;
	spin_lock(&reasons_lock);
	hlist_for_each_entry(r, reasons_of(current), link) if (r->task == current) break;
	spin_unlock(&reasons_lock);
	return r;
}

void env_reason_begin(struct env_reason_text *r)
{
	r->task = current;
	r->now = 0;
	r->text[0][0] = 0;
	spin_lock(&reasons_lock);
	hlist_add_head(&r->link, reasons_of(current));
	spin_unlock(&reasons_lock);
}

void env_reason_end(struct env_reason_text *r)
{
	spin_lock(&reasons_lock);
	hlist_del(&r->link);
	spin_unlock(&reasons_lock);
}

void env_reason(const char *fmt, ...)
{
	struct env_reason_text *r = reason_here();
	va_list ap;

	if (!r)
		return;
	va_start(ap, fmt);
	vsnprintf(r->text[!r->now], sizeof(r->text[0]), fmt, ap);
	va_end(ap);
	r->now = !r->now;
}

const char *env_reason_get(void)
{
	struct env_reason_text *r = reason_here();

	return r ? r->text[r->now] : "";
}
