// SPDX-License-Identifier: GPL-2.0-only OR MIT
/**
 * DOC: crypt - what another device holds is ciphertext
 *
 * Every page is encrypted and authenticated before the device inside sees it, with a key that is
 * made when the device is opened and is nowhere but in this process. AES-256-GCM where the CPU has
 * instructions for it, else XChaCha20-Poly1305 (libsodium). The nonce is a count of writes, so it
 * is never used twice; it and the tag of each page are kept here, 24 bytes a page, and the page's
 * place is authenticated too. So the device can neither read a page nor change one, nor give an
 * older one back, nor that of another place: such a page is -EIO, and is lost.
 *
 * It sees how much is stored, where and when. Pages of zeros that were never touched it does not
 * see. To core the device inside is memory and nothing more.
 */
#include <sodium.h>
#include <sys/mman.h>

#include "drivers/wrap.h"

#define CRYPT_PAGE  4096u
#define CRYPT_BATCH (2u << 20) /* bytes of a batch */
#define CRYPT_PAGES (CRYPT_BATCH / CRYPT_PAGE)
#define CRYPT_JOBS  4 /* batches at once, with 2 MiB of ciphertext each; others wait */
#define CRYPT_TAG   16

_Static_assert(CRYPT_TAG == crypto_aead_xchacha20poly1305_ietf_ABYTES &&
		       CRYPT_TAG == crypto_aead_aes256gcm_ABYTES,
	       "tags");

/* of a place in device memory */
struct crypt_page {
	uint64_t nonce; /* or one of these: */
#define CRYPT_EMPTY 0
#define CRYPT_ZEROS UINT64_MAX
	uint8_t tag[CRYPT_TAG];
};

/* a page of its own: not in core dumps, not in children, locked in memory where that is allowed */
struct crypt_secret {
	uint8_t key[32];
	crypto_aead_aes256gcm_state aes; /* made of the key */
};

/* what is decrypted when a batch has come: [at, at + len) of the ciphertext */
struct crypt_part {
	uint64_t off, len, at;
	char *host;
};

/* a batch under way; a cookie is its address */
struct crypt_job {
	struct crypt_job *next; /* free ones */
	char *text;		/* ciphertext */
	uint64_t used;		/* bytes of it */
	struct balun_copy op[CRYPT_PAGES];
	struct crypt_part part[CRYPT_PAGES];
	unsigned int nops, nparts;
	uint64_t cookie;
};

struct crypt {
	struct wrap in;
	bool aes;
	uint64_t bytes, writes; /* device memory; the last nonce */
	struct crypt_secret *secret;
	struct crypt_page *page;
	struct env_mutex lock; /* leaf: the jobs */
	struct env_cond job_free;
	struct crypt_job *jobs;
	unsigned int njobs;
};

/* ---- a page ---- */

static void crypt_nonce(uint64_t nonce, uint8_t *ret_npub, size_t len)
{
	memset(ret_npub, 0, len);
	memcpy(ret_npub, &nonce, sizeof(nonce));
}

static void crypt_seal(struct crypt *c, uint64_t off, const void *clear, void *text)
{
	struct crypt_page *p = &c->page[off / CRYPT_PAGE];
	uint8_t npub[crypto_aead_xchacha20poly1305_ietf_NPUBBYTES];
	const uint8_t *place = (const uint8_t *)&off;

	p->nonce = env_add(&c->writes, 1) + 1;
	crypt_nonce(p->nonce, npub, sizeof(npub));
	if (c->aes)
		crypto_aead_aes256gcm_encrypt_detached_afternm(text, p->tag, NULL, clear,
							       CRYPT_PAGE, place, sizeof(off), NULL,
							       npub, &c->secret->aes);
	else
		crypto_aead_xchacha20poly1305_ietf_encrypt_detached(text, p->tag, NULL, clear,
								    CRYPT_PAGE, place, sizeof(off),
								    NULL, npub, c->secret->key);
}

static int crypt_unseal(struct crypt *c, uint64_t off, const void *text, void *clear)
{
	const struct crypt_page *p = &c->page[off / CRYPT_PAGE];
	uint8_t npub[crypto_aead_xchacha20poly1305_ietf_NPUBBYTES];
	const uint8_t *place = (const uint8_t *)&off;
	int bad;

	crypt_nonce(p->nonce, npub, sizeof(npub));
	if (c->aes)
		bad = crypto_aead_aes256gcm_decrypt_detached_afternm(clear, NULL, text, CRYPT_PAGE,
								     p->tag, place, sizeof(off),
								     npub, &c->secret->aes);
	else
		bad = crypto_aead_xchacha20poly1305_ietf_decrypt_detached(
			clear, NULL, text, CRYPT_PAGE, p->tag, place, sizeof(off), npub,
			c->secret->key);
	if (!bad)
		return 0;
	env_log(0, "crypt(%s): the page at 0x%llx is not what was stored there", c->in.drv->name,
		(unsigned long long)off);
	return -EIO;
}

/* ---- jobs ---- */

static struct crypt_job *crypt_job_new(void)
{
	struct crypt_job *j = balun_mem_alloc(sizeof(*j));

	if (!j)
		return NULL;
	j->text = balun_mem_alloc(CRYPT_BATCH);
	if (j->text)
		return j;
	balun_mem_free(j, sizeof(*j));
	return NULL;
}

static void crypt_job_free(struct crypt_job *j)
{
	balun_mem_free(j->text, CRYPT_BATCH);
	balun_mem_free(j, sizeof(*j));
}

/* Who has one waits for the device inside only, so one comes free. NULL: there is no memory */
static struct crypt_job *crypt_job_get(struct crypt *c)
{
	struct crypt_job *j;

	env_mutex_lock(&c->lock);
	while (!c->jobs && c->njobs == CRYPT_JOBS)
		env_cond_wait(&c->job_free, &c->lock, ENV_FOREVER);
	j = c->jobs;
	if (j)
		c->jobs = j->next;
	else if ((j = crypt_job_new()))
		c->njobs++;
	env_mutex_unlock(&c->lock);
	if (j)
		j->used = j->nops = j->nparts = 0;
	return j;
}

static void crypt_job_put(struct crypt *c, struct crypt_job *j)
{
	env_mutex_lock(&c->lock);
	j->next = c->jobs;
	c->jobs = j;
	env_cond_wake(&c->job_free);
	env_mutex_unlock(&c->lock);
}

/* the next page of ciphertext, at @off of the device: one op with the page before if both go on */
static void crypt_add_op(struct crypt_job *j, uint64_t off, bool write)
{
	struct balun_copy *last = j->nops ? &j->op[j->nops - 1] : NULL;
	uint64_t text = balun_bus_addr(j->text + j->used);

	j->used += CRYPT_PAGE;
	if (last && (write ? last->dst : last->src) + last->len == off &&
	    (write ? last->src : last->dst) + last->len == text &&
	    (last->dst_kind == BALUN_KIND_LOCAL) == write) {
		last->len += CRYPT_PAGE;
		return;
	}
	j->op[j->nops++] = (struct balun_copy){
		.dst = write ? off : text,
		.src = write ? text : off,
		.len = CRYPT_PAGE,
		.dst_kind = write ? BALUN_KIND_LOCAL : BALUN_KIND_SYSTEM,
		.src_kind = write ? BALUN_KIND_SYSTEM : BALUN_KIND_LOCAL,
	};
}

/* the page at @off comes into the ciphertext that is added next, and goes to @host */
static void crypt_add_part(struct crypt_job *j, uint64_t off, char *host)
{
	struct crypt_part *last = j->nparts ? &j->part[j->nparts - 1] : NULL;

	if (last && last->off + last->len == off && last->at + last->len == j->used &&
	    last->host + last->len == host)
		last->len += CRYPT_PAGE;
	else
		j->part[j->nparts++] = (struct crypt_part){
			.off = off, .len = CRYPT_PAGE, .at = j->used, .host = host
		};
}

static int crypt_write(struct crypt *c, struct crypt_job *j, const struct balun_copy *op)
{
	const char *clear = NULL;
	uint64_t i;

	if (op->src_kind == BALUN_KIND_SYSTEM)
		clear = balun_bus_ptr(op->src, op->len);
	else if (op->src_kind != BALUN_KIND_ZERO)
		return -EOPNOTSUPP;
	for (i = 0; i < op->len; i += CRYPT_PAGE) {
		if (!clear) {
			c->page[(op->dst + i) / CRYPT_PAGE].nonce = CRYPT_ZEROS;
			continue;
		}
		crypt_seal(c, op->dst + i, clear + i, j->text + j->used);
		crypt_add_op(j, op->dst + i, true);
	}
	return 0;
}

static int crypt_read(struct crypt *c, struct crypt_job *j, const struct balun_copy *op)
{
	char *host = balun_bus_ptr(op->dst, op->len);
	uint64_t i, nonce;

	if (op->src_kind != BALUN_KIND_LOCAL)
		return -EOPNOTSUPP;
	for (i = 0; i < op->len; i += CRYPT_PAGE) {
		nonce = c->page[(op->src + i) / CRYPT_PAGE].nonce;
		if (nonce == CRYPT_EMPTY)
			return -EIO;
		if (nonce == CRYPT_ZEROS) {
			memset(host + i, 0, CRYPT_PAGE);
			continue;
		}
		crypt_add_part(j, op->src + i, host + i);
		crypt_add_op(j, op->src + i, false);
	}
	return 0;
}

static int crypt_add(struct crypt *c, struct crypt_job *j, const struct balun_copy *op)
{
	uint64_t off = op->dst_kind == BALUN_KIND_LOCAL ? op->dst : op->src;

	if (op->len > CRYPT_BATCH - j->used || off > c->bytes || op->len > c->bytes - off)
		return -EINVAL;
	return op->dst_kind == BALUN_KIND_LOCAL ? crypt_write(c, j, op) : crypt_read(c, j, op);
}

static int crypt_copy(void *priv, const struct balun_copy *op, size_t n, uint64_t *ret_cookie)
{
	struct crypt *c = priv;
	struct crypt_job *j = crypt_job_get(c);
	int err = j ? 0 : -ENOMEM;
	size_t i;

	for (i = 0; !err && i < n; i++)
		err = crypt_add(c, j, &op[i]);
	if (!err && j->nops)
		err = c->in.ops.copy(c->in.priv, j->op, j->nops, &j->cookie);
	if (!err)
		*ret_cookie = (uintptr_t)j;
	else if (j)
		crypt_job_put(c, j);
	return err;
}

static int crypt_copy_wait(void *priv, uint64_t cookie)
{
	struct crypt_job *j = (struct crypt_job *)(uintptr_t)cookie;
	struct crypt *c = priv;
	unsigned int i;
	uint64_t at;
	int err = 0;

	if (j->nops)
		err = c->in.ops.copy_wait(c->in.priv, j->cookie);
	for (i = 0; !err && i < j->nparts; i++) {
		const struct crypt_part *p = &j->part[i];

		for (at = 0; !err && at < p->len; at += CRYPT_PAGE)
			err = crypt_unseal(c, p->off + at, j->text + p->at + at, p->host + at);
	}
	crypt_job_put(c, j);
	return err;
}

/* ---- the device ---- */

static void crypt_secret_free(struct crypt_secret *s)
{
	sodium_memzero(s, sizeof(*s));
	munlock(s, sizeof(*s));
	balun_mem_free(s, sizeof(*s));
}

/* What is refused here makes the key no less secret from the device inside. */
static struct crypt_secret *crypt_secret_new(bool aes)
{
	struct crypt_secret *s = balun_mem_alloc(sizeof(*s));

	if (!s)
		return NULL;
	if (mlock(s, sizeof(*s)))
		env_log(2, "crypt: the key is not locked in memory: %s", strerror(errno));
	madvise(s, CRYPT_PAGE, MADV_DONTDUMP);
	madvise(s, CRYPT_PAGE, MADV_WIPEONFORK);
	randombytes_buf(s->key, sizeof(s->key));
	if (aes)
		crypto_aead_aes256gcm_beforenm(&s->aes, s->key);
	return s;
}

static int crypt_cipher(const struct balun_options *opt, bool *ret_aes)
{
	const char *word = balun_opt_str(opt, "cipher", "auto");

	if (sodium_init() < 0) {
		env_reason("crypt: libsodium finds no source of randomness");
		return -ENODEV;
	}
	*ret_aes = strcmp(word, "xchacha20") && crypto_aead_aes256gcm_is_available();
	if (!strcmp(word, "auto") || !strcmp(word, "xchacha20"))
		return 0;
	if (strcmp(word, "aes256gcm"))
		return balun_opt_fail(opt, "cipher", "must be aes256gcm, xchacha20 or auto");
	return *ret_aes ? 0 : balun_opt_fail(opt, "cipher", "this CPU has no instructions for it");
}

/*
 * A page there and back, so that each function has run before a page of the program is away, and
 * nothing is left for the dynamic linker to do then.
 */
static int crypt_try(struct crypt *c)
{
	struct crypt_job *j = crypt_job_get(c);
	int err;

	if (!j)
		return -ENOMEM;
	crypt_seal(c, 0, j->text, j->text + CRYPT_PAGE);
	err = crypt_unseal(c, 0, j->text + CRYPT_PAGE, j->text);
	c->page[0].nonce = CRYPT_EMPTY;
	crypt_job_put(c, j);
	return err;
}

static void crypt_free(struct crypt *c)
{
	struct crypt_job *j;

	while ((j = c->jobs)) {
		c->jobs = j->next;
		crypt_job_free(j);
	}
	if (c->secret)
		crypt_secret_free(c->secret);
	balun_mem_free(c->page, c->bytes / CRYPT_PAGE * sizeof(*c->page));
	env_cond_destroy(&c->job_free);
	env_mutex_destroy(&c->lock);
	balun_mem_free(c, sizeof(*c));
}

static int crypt_open(struct balun_device *dev, const struct balun_options *opt,
		      struct balun_desc *ret_desc, void **ret_priv)
{
	struct crypt *c = balun_mem_alloc(sizeof(*c));
	int err;

	if (!c)
		return -ENOMEM;
	env_mutex_init(&c->lock);
	env_cond_init(&c->job_free);
	err = crypt_cipher(opt, &c->aes);
	if (!err)
		err = wrap_open(&c->in, dev, opt, ret_desc);
	if (err)
		goto err_free;
	err = wrap_as_memory(&c->in, "crypt", BALUN_CAP_ALLOC, ret_desc);
	if (err)
		goto err_close;
	c->bytes = ret_desc->mem_bytes;
	c->page = balun_mem_alloc(c->bytes / CRYPT_PAGE * sizeof(*c->page));
	c->secret = crypt_secret_new(c->aes);
	err = c->page && c->secret ? crypt_try(c) : -ENOMEM;
	if (err)
		goto err_close;
	*ret_priv = c;
	return 0;

err_close:
	c->in.ops.close(c->in.priv);
err_free:
	crypt_free(c);
	return err;
}

static void crypt_close(void *priv)
{
	struct crypt *c = priv;

	c->in.ops.close(c->in.priv);
	crypt_free(c);
}

static int crypt_map(void *priv, struct balun_space *space, const struct balun_seg *seg, size_t n)
{
	return 0;
}

static void crypt_unmap(void *priv, struct balun_space *space, uint64_t va, uint64_t len,
			enum balun_cause cause)
{
}

static int crypt_attach(void *priv, struct balun_space *space)
{
	struct crypt *c = priv;

	return c->in.ops.attach(c->in.priv, space);
}

static void crypt_gone(void *priv, struct balun_space *space)
{
	struct crypt *c = priv;

	c->in.ops.gone(c->in.priv, space);
}

static int crypt_alloc(void *priv, uint64_t len, uint64_t *ret_off)
{
	struct crypt *c = priv;

	return c->in.ops.alloc(c->in.priv, len, ret_off);
}

static void crypt_free_place(void *priv, uint64_t off, uint64_t len)
{
	struct crypt *c = priv;

	c->in.ops.free(c->in.priv, off, len);
}

static int crypt_active(void *priv, bool on)
{
	struct crypt *c = priv;

	return c->in.ops.active(c->in.priv, on);
}

/* ciphertext is of no use to who looks for the driver inside */
static const struct balun_driver *crypt_inner(void *priv, void **ret_priv)
{
	return NULL;
}

static void crypt_trim(void *priv, uint64_t off, uint64_t len)
{
	struct crypt *c = priv;

	c->in.ops.trim(c->in.priv, off, len);
}

static uint64_t crypt_footprint(void *priv)
{
	struct crypt *c = priv;

	return c->in.ops.footprint(c->in.priv);
}

extern const struct balun_driver balun_crypt_driver;
const struct balun_driver balun_crypt_driver = {
	.size = sizeof(struct balun_driver),
	.caps = BALUN_CAP_ALLOC | BALUN_CAP_WRAPPER,
	.name = "crypt",
	.help = "cipher=auto  aes256gcm, xchacha20, or the first that the CPU has instructions "
		"for\n",
	.open = crypt_open,
	.close = crypt_close,
	.map = crypt_map,
	.unmap = crypt_unmap,
	.copy = crypt_copy,
	.copy_wait = crypt_copy_wait,
	.attach = crypt_attach,
	.gone = crypt_gone,
	.alloc = crypt_alloc,
	.free = crypt_free_place,
	.active = crypt_active,
	.inner = crypt_inner,
	.trim = crypt_trim,
	.footprint = crypt_footprint,
};
