package producer

import (
	"context"
	"fmt"
	"iter"

	"github.com/exhume/exhume/internal/failpoint"
	"github.com/exhume/exhume/schemas"
)

// Control is the control API as a producer sees it.
type Control interface {
	// Open opens a batch, or finds the one that has its id already.
	Open(ctx context.Context, b schemas.Batch) (schemas.Summary, error)
	// Kept is the lowest index of a batch whose request is not kept. A collector of an
	// older program, which keeps nothing, makes it fail with CodeNoCollector.
	Kept(ctx context.Context, id string) (int64, error)
	// Keep keeps requests until their batch ends, so that what the broker loses of them
	// can be published again. It can be repeated.
	Keep(ctx context.Context, k schemas.Kept) error
	// Seal says that all requests are published: so many items, from a
	// manifest with this SHA-256.
	Seal(ctx context.Context, id string, total int64, manifestSHA256 string) (schemas.Summary, error)
}

// Queue is where requests go.
type Queue interface {
	// LastIndex is the index of the batch's last stored request, -1 for none.
	LastIndex(ctx context.Context, batch string) (int64, error)
	// Publish stores requests of one batch in their order, up to perMessage of
	// them in one message, and can be repeated. When it fails, a first part of
	// them may be stored.
	Publish(ctx context.Context, requests []schemas.Request, perMessage int) error
	// LastCanary and PublishCanary are the same for the batch's sample.
	LastCanary(ctx context.Context, batch string) (int64, error)
	PublishCanary(ctx context.Context, requests []schemas.Request) error
}

const (
	// firstPublish is how many requests are published at first, so that workers
	// can begin, and maxPublish at once when there are many.
	firstPublish, maxPublish = 512, 4096
)

// Submission is a batch that is to be submitted.
type Submission struct {
	Batch schemas.Batch
	// Items are the batch's requests, indexed from 0 without gaps; the batch's
	// id is filled in here.
	Items iter.Seq2[schemas.Request, error]
	// Total is how many there are.
	Total int64
	// Progress, if set, is told how many requests are published.
	Progress func(published int64)
	// Waiting, if set, is told why nothing more can be published for now: the queue is
	// full, and publication waits for room, or no collector answers. It is told every few
	// seconds, and with nil when it goes on.
	Waiting func(reason error)
}

// Submitted says what a submission did.
type Submitted struct {
	schemas.Summary
	// Published is how many requests this submission added.
	Published int64
	// Known says that the batch had been submitted before, Before what it had
	// come to then.
	Known  bool
	Before schemas.Counts
}

// Submit opens the batch, has its requests kept, publishes them and seals it. A
// batch that was submitted before is continued where its publication stopped; one
// that is complete is left alone, and so is one that is sealed: what the broker has
// lost of it the collector publishes again. Submit does not wait for results.
//
// When it fails or the context ends, what was published is kept, the batch
// stays open, and the same call continues.
func Submit(ctx context.Context, c Control, q Queue, s Submission) (Submitted, error) {
	if err := schemas.CheckName(s.Batch.ID); err != nil {
		return Submitted{}, fmt.Errorf("batch: %w", err)
	}
	s.Batch.PerMessage = schemas.PerMessage(s.Total, s.Batch.Terms.MaxInFlight)
	before, err := c.Open(ctx, s.Batch)
	if err != nil {
		return Submitted{}, err
	}
	if err := sameBatch(before.Batch, s.Batch); err != nil {
		return Submitted{}, err
	}
	known := !before.SealedAt.IsZero() || before.Counts.Done() > 0
	if before.State.Final() {
		return Submitted{Summary: before, Known: true, Before: before.Counts}, nil
	}
	failpoint.Here("producer.opened")
	before.PerMessage = max(before.PerMessage, 1) // of an older program's batch
	c = steady{c, s.Waiting}
	k, err := newKeeper(ctx, c, s.Batch)
	if err != nil {
		return Submitted{}, err
	}
	p := publishing{queue: patient{q, s.Waiting}, keeper: k, Submission: s, batch: before.Batch}
	begun, err := p.publish(ctx)
	if err != nil {
		return Submitted{}, err
	}
	failpoint.Here("producer.sealing")
	sum, err := c.Seal(ctx, s.Batch.ID, s.Total, s.Batch.ManifestSHA256)
	return Submitted{Summary: sum, Published: p.published, Known: known || begun, Before: before.Counts}, err
}

// sameBatch refuses to continue a batch with other items or another meaning.
func sameBatch(before, now schemas.Batch) error {
	switch {
	case before.ManifestSHA256 != now.ManifestSHA256:
		return fmt.Errorf("batch %q exists and came from another manifest (%s, SHA-256 %s): choose another name with --batch",
			before.ID, before.Manifest, before.ManifestSHA256)
	case before.Settings != now.Settings || before.Archive != now.Archive:
		return fmt.Errorf("batch %q exists with other settings (archive %s, root %s, overwrite %s, mode %04o): use the same, or choose another name with --batch",
			before.ID, before.Archive, before.Settings.Root, before.Settings.Overwrite, before.Settings.Mode)
	}
	return nil
}

// publishing is one publication of a submission's items.
type publishing struct {
	Submission
	queue  Queue
	keeper *keeper
	// batch is as it was opened.
	batch schemas.Batch
	// stored is how many requests there are, published how many of them this
	// submission added.
	stored, published int64
}

// publish publishes what is not published yet, the batch's sample first. It says
// whether anything was there already.
func (p *publishing) publish(ctx context.Context) (begun bool, err error) {
	if !p.batch.SealedAt.IsZero() && !p.keeper.off {
		// An older program may have left it without anything kept.
		return true, p.pass(ctx, func(int64) bool { return false }, p.Total-1, nil)
	}
	all := func(int64) bool { return true }
	if canary := p.batch.Terms.Canary; canary != nil {
		sample := func(i int64) bool { return canary.Has(i, p.Total) }
		last, err := p.queue.LastCanary(ctx, p.batch.ID)
		if err != nil {
			return false, err
		}
		if err := p.pass(ctx, sample, last, p.queue.PublishCanary); err != nil {
			return false, err
		}
		begun, all = last >= 0, func(i int64) bool { return !sample(i) }
	}
	last, err := p.queue.LastIndex(ctx, p.batch.ID)
	if err != nil {
		return false, err
	}
	return begun || last >= 0, p.pass(ctx, all, last, func(ctx context.Context, group []schemas.Request) error {
		return p.queue.Publish(ctx, group, int(p.batch.PerMessage))
	})
}

// pass goes once through the items and publishes those that are wanted after the
// index last. What is not kept yet is kept before it is published.
func (p *publishing) pass(ctx context.Context, wanted func(int64) bool, last int64, publish func(context.Context, []schemas.Request) error) error {
	if last+1 >= p.Total && !p.keeper.wants(p.Total) {
		p.stored = p.Total
		return nil
	}
	var group []schemas.Request
	size := firstPublish
	flush := func() error {
		if len(group) == 0 {
			return nil
		}
		if err := p.keeper.flush(ctx); err != nil {
			return err
		}
		if err := publish(ctx, group); err != nil {
			return err
		}
		failpoint.Here("producer.published")
		p.stored += int64(len(group))
		p.published += int64(len(group))
		group, size = group[:0], min(2*size, maxPublish)
		if p.Progress != nil {
			p.Progress(p.stored)
		}
		return nil
	}
	next := int64(0)
	for r, err := range p.Items {
		if err != nil {
			return err
		}
		if r.Index != next || next == p.Total {
			return p.changed()
		}
		next++
		if err := p.keeper.add(ctx, &r); err != nil {
			return err
		}
		switch {
		case !wanted(r.Index):
			continue
		case r.Index <= last:
			p.stored++
			continue
		}
		r.Batch = p.Batch.ID
		group = append(group, r)
		if len(group) == size {
			if err := flush(); err != nil {
				return err
			}
		}
	}
	if next != p.Total {
		return p.changed()
	}
	if err := p.keeper.flush(ctx); err != nil {
		return err
	}
	return flush()
}

// changed is the error of a manifest whose items are not those counted before.
// A batch of them could never be complete, so it is not sealed.
func (s *Submission) changed() error {
	return fmt.Errorf("manifest %s: it does not have the %d items that were counted before: do not change it while it is read, then submit it again",
		s.Batch.Manifest, s.Total)
}
