package producer

import (
	"context"
	"fmt"
	"iter"

	"github.com/exhume/exhume/schemas"
)

// Control is the control API as a producer sees it.
type Control interface {
	// Open opens a batch, or finds the one that has its id already.
	Open(ctx context.Context, b schemas.Batch) (schemas.Summary, error)
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
}

const (
	// firstPublish is how many requests are published at first, so that workers
	// can begin, and maxPublish at once when there are many.
	firstPublish, maxPublish = 512, 4096
	// maxPerMessage is how many requests one message carries when there are many.
	maxPerMessage = 64
)

// perMessage is how many requests of a batch go into one message. What is in one
// message is done by one worker, so that a small batch, which may be one of large
// artifacts, is divided further.
func perMessage(total int64) int { return int(max(1, min(total/256, maxPerMessage))) }

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

// Submit opens the batch, publishes its requests and seals it. A batch that was
// submitted before is continued where its publication stopped; one that is
// complete is left alone. Submit does not wait for results.
//
// When it fails or the context ends, what was published is kept, the batch
// stays open, and the same call continues.
func Submit(ctx context.Context, c Control, q Queue, s Submission) (Submitted, error) {
	if err := schemas.CheckName(s.Batch.ID); err != nil {
		return Submitted{}, fmt.Errorf("batch: %w", err)
	}
	before, err := c.Open(ctx, s.Batch)
	if err != nil {
		return Submitted{}, err
	}
	if err := sameBatch(before.Batch, s.Batch); err != nil {
		return Submitted{}, err
	}
	known := before.State != schemas.StateOpen || before.Counts.Done() > 0
	if before.State.Final() {
		return Submitted{Summary: before, Known: true, Before: before.Counts}, nil
	}
	last, err := q.LastIndex(ctx, s.Batch.ID)
	if err != nil {
		return Submitted{}, err
	}
	published, err := publish(ctx, q, s, last)
	if err != nil {
		return Submitted{}, err
	}
	sum, err := c.Seal(ctx, s.Batch.ID, s.Total, s.Batch.ManifestSHA256)
	return Submitted{Summary: sum, Published: published, Known: known || last >= 0, Before: before.Counts}, err
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

// publish publishes the items after the index last.
func publish(ctx context.Context, q Queue, s Submission, last int64) (published int64, err error) {
	if last+1 >= s.Total {
		return 0, nil
	}
	var group []schemas.Request
	size := firstPublish
	flush := func() error {
		if len(group) == 0 {
			return nil
		}
		if err := q.Publish(ctx, group, perMessage(s.Total)); err != nil {
			return err
		}
		published += int64(len(group))
		group, size = group[:0], min(2*size, maxPublish)
		if s.Progress != nil {
			s.Progress(last + 1 + published)
		}
		return nil
	}
	next := int64(0)
	for r, err := range s.Items {
		if err != nil {
			return published, err
		}
		if r.Index != next || next == s.Total {
			return published, s.changed()
		}
		if next++; r.Index <= last {
			continue
		}
		r.Batch = s.Batch.ID
		group = append(group, r)
		if len(group) == size {
			if err := flush(); err != nil {
				return published, err
			}
		}
	}
	if next != s.Total {
		return published, s.changed()
	}
	return published, flush()
}

// changed is the error of a manifest whose items are not those counted before.
// A batch of them could never be complete, so it is not sealed.
func (s *Submission) changed() error {
	return fmt.Errorf("manifest %s: it does not have the %d items that were counted before: do not change it while it is read, then submit it again",
		s.Batch.Manifest, s.Total)
}
