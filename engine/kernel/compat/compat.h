/* SPDX-License-Identifier: GPL-2.0-only */
/**
 * DOC: compat.h - one face for kernels that differ
 *
 * The only place where they do. What a kernel has is found out when the modules are built, by
 * compiling the files in probe/: have.h is the result. Each wrapper says what changed, and in which
 * release; where there are two ways, the new one is the one the rest of the engine thinks in.
 */
#ifndef BALUN_COMPAT_H
#define BALUN_COMPAT_H

#include <linux/dma-mapping.h>
#include <linux/hmm.h>
#include <linux/ioport.h>
#include <linux/memremap.h>
#include <linux/migrate.h>
#include <linux/mm.h>
#include <linux/rmap.h>
#include <linux/scatterlist.h>

#include "engine/kernel/compat/have.h"

#if !IS_ENABLED(CONFIG_HMM_MIRROR) || !IS_ENABLED(CONFIG_DEVICE_MIGRATION)
#error "this kernel was configured without CONFIG_HMM_MIRROR or CONFIG_ZONE_DEVICE"
#endif

/*
 * Private memory and exclusive access exist with CONFIG_DEVICE_PRIVATE only, which distributions
 * may leave out: what needs it says -EOPNOTSUPP, and nothing that it brings is linked to.
 */
#define COMPAT_DEVICE_PRIVATE IS_ENABLED(CONFIG_DEVICE_PRIVATE)

/* a range of addresses that no memory has, for the pages of private memory; or an ERR_PTR */
static inline struct resource *compat_request_free_mem_region(unsigned long bytes, const char *name)
{
#ifdef CONFIG_DEVICE_PRIVATE /* selects CONFIG_GET_FREE_REGION, under which it is built */
	return request_free_mem_region(&iomem_resource, bytes, name);
#else
	return ERR_PTR(-EOPNOTSUPP);
#endif
}
/*
 * The op of struct dev_pagemap_ops that is called when a page of device memory is free:
 *
 *	static void freed(compat_freed_t *f)	{ struct page *page = compat_freed_page(f); ... }
 *	.COMPAT_FREED = freed,
 *
 * page_free(struct page *) until 6.18; folio_free(struct folio *) from 6.19, with large folios of
 * device memory.
 */
#ifdef BALUN_HAVE_FOLIO_FREE
#define COMPAT_FREED folio_free
typedef struct folio compat_freed_t;
static inline struct page *compat_freed_page(compat_freed_t *f)
{
	return &f->page;
}
static inline unsigned long compat_freed_pages(compat_freed_t *f)
{
	return folio_nr_pages(f);
}
#else
#define COMPAT_FREED page_free
typedef struct page compat_freed_t;
static inline struct page *compat_freed_page(compat_freed_t *f)
{
	return f;
}
static inline unsigned long compat_freed_pages(compat_freed_t *f)
{
	return 1;
}
#endif

/*
 * Huge pages as they are, to device memory and home: from 6.19 on request. Before, pages arrive
 * split, and there are no such flags: 0. A device's folio is split by the kernel where it has to
 * be; as what is known of a page is found by its number, the op folio_split has nothing to do.
 */
#ifdef BALUN_HAVE_SELECT_COMPOUND
#define COMPAT_SELECT_COMPOUND MIGRATE_VMA_SELECT_COMPOUND
#define COMPAT_PFN_COMPOUND    MIGRATE_PFN_COMPOUND
#else
#define COMPAT_SELECT_COMPOUND 0
#define COMPAT_PFN_COMPOUND    0
#endif
/* of a mapping: not where the program wants none (MADV_NOHUGEPAGE, PR_SET_THP_DISABLE) */
static inline unsigned int compat_select_compound(struct vm_area_struct *vma)
{
#if defined(BALUN_HAVE_SELECT_COMPOUND) && defined(CONFIG_TRANSPARENT_HUGEPAGE)
	return vma_thp_disabled(vma, vma->vm_flags, false) ? 0 : COMPAT_SELECT_COMPOUND;
#else
	return 0;
#endif
}

/* In migrate_to_ram(): is what a CPU touches a folio that is mapped as a huge page? From 6.19, and
 * there is no pte. */
static inline bool compat_fault_is_huge(const struct vm_fault *vmf)
{
	return COMPAT_SELECT_COMPOUND && !vmf->pte;
}
/* ... or is it a part of one that is mapped by small pages? */
static inline bool compat_page_is_part(struct page *page)
{
	return COMPAT_SELECT_COMPOUND && folio_test_large(page_folio(page));
}
static inline bool compat_fault_is_part(const struct vm_fault *vmf)
{
	return vmf->pte && compat_page_is_part(vmf->page);
}
/* of the first page of such a folio: are parts of it mapped, and others not? */
static inline bool compat_page_is_cut(struct page *page)
{
#ifdef BALUN_HAVE_SELECT_COMPOUND
	struct folio *folio = page_folio(page);
	int n = folio_mapcount(folio);

	return folio_test_large(folio) && !folio_entire_mapcount(folio) && n &&
	       n < folio_nr_pages(folio);
#else
	return false;
#endif
}
/* ... and the page that is touched, if it is huge: vmf->page, of a huge one the first */
static inline struct page *compat_fault_page(const struct vm_fault *vmf)
{
	return vmf->page +
	       (compat_fault_is_huge(vmf) ? (vmf->address & ~PMD_MASK) >> PAGE_SHIFT : 0);
}

/* Hand out a free page of device memory: locked, one reference. From 6.19 a page forgets while it
 * is free which pagemap it is of, and may become the head of a large folio: else @order is 0. */
static inline void compat_zone_device_page_init(struct page *page, struct dev_pagemap *pgmap,
						unsigned int order)
{
#ifdef BALUN_HAVE_ZONE_DEVICE_PAGE_INIT
	zone_device_page_init(page, pgmap, order);
#else
	zone_device_page_init(page);
#endif
}
/* Until 6.14 each page has it; from 6.15 the folio, for zone device memory has compound pages. */
static inline struct dev_pagemap *compat_page_pgmap(struct page *page)
{
#ifdef BALUN_HAVE_PAGE_PGMAP
	return page_pgmap(page);
#else
	return page->pgmap;
#endif
}
/*
 * Nothing to do for, but to know of: from 6.15 migrate_to_ram() finds vmf->page locked, and
 * migrate_vma_setup() wants its fault_page so and leaves it so. Before, the page is referenced
 * only, and collecting it takes the lock as for other pages. Who neither locks nor unlocks it is
 * right on both. No declaration tells; migrate_device_pfns() came in the same series.
 */

/* One page, referenced; mmap_lock held, which may be let go of: *locked becomes 0. Return: 1 or
 * -errno. The array of vmas is gone in 6.5. */
static inline long compat_get_user_page_remote(struct mm_struct *mm, unsigned long addr,
					       unsigned int gup_flags, struct page **ret_page,
					       int *locked)
{
#ifdef BALUN_HAVE_GUP_VMAS
	return get_user_pages_remote(mm, addr, 1, gup_flags, ret_page, NULL, locked);
#else
	return get_user_pages_remote(mm, addr, 1, gup_flags, ret_page, locked);
#endif
}

/*
 * Of dma_map_sgtable(): it is memory of a device. From 6.18 who maps has to say so, or bounce
 * buffers may be put in between; before, the kernel sees it by the pages.
 */
#ifdef BALUN_HAVE_DMA_ATTR_MMIO
#define COMPAT_DMA_MMIO DMA_ATTR_MMIO
#else
#define COMPAT_DMA_MMIO 0
#endif
/* Is that of memory of a device on the same bus, and no IOMMU's? Until 6.4 by another name. */
static inline bool compat_sg_is_bus_address(struct scatterlist *sg)
{
#ifdef BALUN_HAVE_SG_DMA_IS_BUS_ADDRESS
	return sg_dma_is_bus_address(sg);
#else
	return sg_is_dma_bus_address(sg);
#endif
}
#endif
