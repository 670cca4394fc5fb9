// SPDX-License-Identifier: GPL-2.0-only OR MIT
/*
 * balun-nbd: the helper process of the driver nbd. libnbd allocates memory in every call, which a
 * driver must not do while pages of its program may be away, so it lives here; requests and their
 * data come through shared memory (nbd_shared.h). Started by the driver, never by hand.
 *
 * A thread a connection takes requests, as many as there are and up to 16 at once, and looks for
 * new ones after each answer. It sleeps when there are none. The end of a connection is the end of
 * the helper, and with it of the device: what a server has after a restart is not what it had.
 */
#include <errno.h>
#include <libnbd.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>

#include "drivers/nbd_shared.h"

#define AT_ONCE 16
#define PAGE	4096

struct conn {
	struct nbd_handle *nbd;
	pthread_t thread;
	unsigned int busy; /* requests without an answer; of this thread alone */
};

static struct nbd_shared *shared;
static struct conn conns[NBD_CONNS_MAX];

static void die(const char *what, const char *why)
{
	snprintf(shared->reason, sizeof(shared->reason), "%s: %s", what, why ? why : "no reason");
	__atomic_store_n(&shared->state, NBD_FAILED, __ATOMIC_RELEASE);
	nbd_wake(&shared->state);
	_exit(1);
}

/* ---- requests ---- */

static int answer_error(int err)
{
	return err == ENOSPC || err == ENOMEM ? -err : -EIO;
}

struct request {
	struct conn *conn;
	struct nbd_slot *slot;
};
static struct request requests[NBD_SLOTS];

static int done(void *arg, int *error)
{
	struct request *r = arg;

	r->conn->busy--;
	nbd_answer(r->slot, *error ? answer_error(*error) : 0);
	return 1; /* libnbd forgets it */
}

static void begin(struct conn *c, unsigned int i)
{
	nbd_completion_callback cb = { .callback = done, .user_data = &requests[i] };
	struct nbd_slot *slot = &shared->slot[i];
	int64_t rc;

	requests[i] = (struct request){ .conn = c, .slot = slot };
	c->busy++;
	if (slot->type == NBD_READ)
		rc = nbd_aio_pread(c->nbd, nbd_data(shared, i), slot->len, slot->off, cb, 0);
	else if (slot->type == NBD_WRITE)
		rc = nbd_aio_pwrite(c->nbd, nbd_data(shared, i), slot->len, slot->off, cb, 0);
	else
		rc = nbd_aio_trim(c->nbd, slot->len, slot->off, cb, 0);
	if (rc >= 0)
		return;
	if (nbd_aio_is_dead(c->nbd) || nbd_aio_is_closed(c->nbd))
		_exit(1);
	/* refused before it was sent; then the callback is not called */
	c->busy--;
	nbd_answer(slot, answer_error(nbd_get_errno()));
}

static bool take(struct nbd_slot *slot)
{
	uint32_t queued = NBD_QUEUED;

	return __atomic_load_n(&slot->state, __ATOMIC_ACQUIRE) == NBD_QUEUED &&
	       __atomic_compare_exchange_n(&slot->state, &queued, NBD_TAKEN, false,
					   __ATOMIC_ACQUIRE, __ATOMIC_RELAXED);
}

/*
 * Sleeping is said before @queued is looked at again, and who queues grows it before he looks who
 * sleeps; all of it sequentially consistent.
 */
static void wait_queued(uint32_t seen)
{
	__atomic_fetch_add(&shared->sleeping, 1, __ATOMIC_SEQ_CST);
	nbd_sleep(&shared->queued, seen, NULL);
	__atomic_fetch_sub(&shared->sleeping, 1, __ATOMIC_SEQ_CST);
}

static void *serve(void *arg)
{
	struct conn *c = arg;
	unsigned int i;

	for (;;) {
		uint32_t seen = __atomic_load_n(&shared->queued, __ATOMIC_SEQ_CST);

		for (i = 0; i < NBD_SLOTS && c->busy < AT_ONCE; i++)
			if (take(&shared->slot[i]))
				begin(c, i);
		if (!c->busy)
			wait_queued(seen);
		else if (nbd_poll(c->nbd, -1) < 0)
			_exit(1);
	}
	return NULL;
}

/* ---- beginning and end ---- */

static void connect_one(struct conn *c)
{
	c->nbd = nbd_create();
	if (!c->nbd || nbd_set_pread_initialize(c->nbd, false) ||
	    nbd_connect_uri(c->nbd, shared->uri))
		die("cannot connect", nbd_get_error());
}

/* What one connection has written another one reads only if the server says so. */
static unsigned int connect_all(void)
{
	int64_t bytes, least, most;
	unsigned int i, n;

	connect_one(&conns[0]);
	bytes = nbd_get_size(conns[0].nbd);
	if (bytes < 0)
		die("the export has no size", nbd_get_error());
	if (nbd_is_read_only(conns[0].nbd) != 0)
		die("the export", "it is read-only");
	least = nbd_get_block_size(conns[0].nbd, LIBNBD_SIZE_MINIMUM);
	if (least > PAGE)
		die("the export", "it is read and written in blocks of more than 4 KiB");
	most = nbd_get_block_size(conns[0].nbd, LIBNBD_SIZE_MAXIMUM);
	if (most > 0 && most < PAGE)
		die("the export", "it takes less than 4 KiB at once");
	shared->most = most > 0 && most < NBD_SLOT_BYTES ? most / PAGE * PAGE : NBD_SLOT_BYTES;
	shared->bytes = bytes;
	shared->can_trim = nbd_can_trim(conns[0].nbd) == 1;
	n = nbd_can_multi_conn(conns[0].nbd) == 1 ? shared->conns : 1;
	for (i = 1; i < n; i++)
		connect_one(&conns[i]);
	return n;
}

static void lock_or_die(pthread_mutex_t *m)
{
	if (pthread_mutex_lock(m))
		_exit(1);
}

/* The program lets go of its mutex when it dies or becomes another. */
static void *watch_program(void *arg)
{
	pthread_mutex_lock(&shared->program);
	_exit(0);
	return NULL;
}

/* also while a server says nothing */
static void *watch_stop(void *arg)
{
	while (!__atomic_load_n(&shared->stop, __ATOMIC_ACQUIRE))
		nbd_sleep(&shared->stop, 0, NULL);
	_exit(0);
	return NULL;
}

static void thread(pthread_t *t, void *(*fn)(void *), void *arg)
{
	int err = pthread_create(t, NULL, fn, arg);

	if (err)
		die("cannot make a thread", strerror(err));
}

int main(void)
{
	unsigned int i, n;
	pthread_t watch, stop;

	shared = mmap(NULL, NBD_BYTES, PROT_READ | PROT_WRITE, MAP_SHARED, NBD_FD_SHARED, 0);
	if (shared == MAP_FAILED) {
		fprintf(stderr, "balun-nbd: the helper of the driver nbd, which starts it\n");
		return 2;
	}
	close(NBD_FD_SHARED);
	lock_or_die(&shared->helper); /* before anybody waits for it */
	if (write(NBD_FD_BEGUN, "", 1) != 1)
		return 2;
	close(NBD_FD_BEGUN);
	thread(&watch, watch_program, NULL);
	thread(&stop, watch_stop, NULL);
	n = connect_all();
	for (i = 0; i < n; i++)
		thread(&conns[i].thread, serve, &conns[i]);
	__atomic_store_n(&shared->state, NBD_READY, __ATOMIC_RELEASE);
	nbd_wake(&shared->state);
	pthread_join(stop, NULL); /* which it never is */
	return 0;
}
