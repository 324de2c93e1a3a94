package ledger

import (
	"cmp"
	"context"
	"fmt"
	"math"
	"slices"
	"time"

	"github.com/exhume/exhume/schemas"
)

const (
	// maxGroups is how many groups are told apart.
	maxGroups = 1000
	// maxSamples is how many letters of a group are shown.
	maxSamples = 3
	// letterPage is the number of letters read at a time.
	letterPage = 5000
	// restMessage is the message of the group of all letters that came when there
	// were maxGroups others.
	restMessage = "…"
)

// LetterGroups gives the failed results that q means in groups of the same code
// and normalised detail, the largest first. q.Batch is a whole id; its After and
// Limit mean nothing here. Of more than a thousand kinds of letters the oldest
// batches' are told apart; the others are the last group, with neither code nor
// samples.
func (r *Reader) LetterGroups(ctx context.Context, q schemas.LettersQuery) ([]schemas.LetterGroup, error) {
	f, ok := letterFilter(q)
	if !ok {
		return []schemas.LetterGroup{}, nil
	}
	first, last := int64(0), int64(math.MaxInt64)
	if q.Batch != "" {
		b, err := batchByID(ctx, r.db, q.Batch, "")
		if err != nil {
			return nil, r.named(err)
		}
		first, last = b.no, b.no
	}
	var copied taken
	if !q.All {
		err := r.db.snapshot(ctx, func(db querier) (err error) {
			copied, err = takenLetters(ctx, db)
			return err
		})
		if err != nil {
			return nil, r.named(err)
		}
	}
	g := grouping{byKind: map[letterKind]*letterGroup{}}
	statement, args := groupQuery(r.db.dialect(), f)
	for at := (place{first, -1}); ; {
		page, err := r.readLetters(ctx, statement, append([]any{at.batchNo, at.index, last}, args...))
		if err != nil {
			return nil, r.named(err)
		}
		for _, l := range page {
			at = l.place
			if copied.has(l.batchNo, l.code, l.detail, l.finished) {
				continue
			}
			if message := schemas.Normalise(l.detail); f.Message == "" || f.Message == message {
				g.add(l, message)
			}
		}
		if len(page) < letterPage {
			break
		}
	}
	groups, err := r.sampled(ctx, g.largestFirst(), q.Batch)
	return groups, r.named(err)
}

// groupQuery gives the statement for one page of letters; its parameters are the
// place of the one before, the number of the last batch, then those in args.
func groupQuery(d dialect, f Filter) (statement string, args []any) {
	from, conditions, args := f.where(d, 3)
	return fmt.Sprintf(`SELECT batch_no, idx, code, detail, finished_at FROM %s
		WHERE (batch_no, idx) > ($1, $2) AND batch_no <= $3%s ORDER BY batch_no, idx LIMIT %d`, from, conditions, letterPage), args
}

// letter is what of a failed result it takes to group it.
type letter struct {
	place
	code     schemas.Code
	detail   string
	finished time.Time
}

func (r *Reader) readLetters(ctx context.Context, statement string, args []any) (page []letter, err error) {
	err = r.db.inOrder(ctx, func(q querier) error {
		found, err := q.query(ctx, statement, args...)
		if err != nil {
			return err
		}
		defer func() { _ = found.Close() }()
		for found.Next() {
			var l letter
			var finished *int64
			if err := found.Scan(&l.batchNo, &l.index, (*string)(&l.code), &l.detail, &finished); err != nil {
				return err
			}
			l.finished = instant(finished)
			page = append(page, l)
		}
		return found.Err()
	})
	return page, err
}

// letterKind is what the letters of a group have in common.
type letterKind struct {
	code    schemas.Code
	message string
}

// letterGroup is a group, and where its samples and its last letter are.
type letterGroup struct {
	schemas.LetterGroup
	samples []place
	batchNo int64
}

// grouping is one call of LetterGroups.
type grouping struct {
	byKind map[letterKind]*letterGroup
	rest   *letterGroup
}

// add adds a letter; they come in the order of their places.
func (g *grouping) add(l letter, message string) {
	kind := letterKind{l.code, message}
	group := g.byKind[kind]
	switch {
	case group != nil:
	case len(g.byKind) < maxGroups:
		group = &letterGroup{LetterGroup: schemas.LetterGroup{Code: l.code, Message: message, Remedy: l.code.Info().Remedy}}
		g.byKind[kind] = group
	default:
		if g.rest == nil {
			g.rest = &letterGroup{LetterGroup: schemas.LetterGroup{Message: restMessage, Remedy: "ask for one batch, or for one code"}}
		}
		group = g.rest
	}
	group.Count++
	if group.batchNo != l.batchNo {
		group.batchNo = l.batchNo
		group.Batches++
	}
	if !l.finished.IsZero() && (group.First.IsZero() || l.finished.Before(group.First)) {
		group.First = l.finished
	}
	if l.finished.After(group.Last) {
		group.Last = l.finished
	}
	if len(group.samples) < maxSamples && group != g.rest {
		group.samples = append(group.samples, l.place)
	}
}

func (g *grouping) largestFirst() []*letterGroup {
	groups := make([]*letterGroup, 0, len(g.byKind)+1)
	for _, group := range g.byKind {
		groups = append(groups, group)
	}
	slices.SortFunc(groups, func(a, b *letterGroup) int {
		return cmp.Or(cmp.Compare(b.Count, a.Count), cmp.Compare(a.Code, b.Code), cmp.Compare(a.Message, b.Message))
	})
	if g.rest != nil {
		groups = append(groups, g.rest)
	}
	return groups
}

// sampled reads the samples of the groups, which are of all batches or of one.
func (r *Reader) sampled(ctx context.Context, groups []*letterGroup, batch string) ([]schemas.LetterGroup, error) {
	done := make([]schemas.LetterGroup, 0, len(groups))
	err := r.db.inOrder(ctx, func(q querier) error {
		batches, err := failedBatches(ctx, q, batch)
		if err != nil {
			return err
		}
		ids := make(map[int64]string, len(batches))
		for _, b := range batches {
			ids[b.no] = b.id
		}
		for _, g := range groups {
			g.Samples = make([]schemas.Result, 0, len(g.samples))
			for _, at := range g.samples {
				res, err := scanResult(q.queryRow(ctx, `SELECT `+resultColumns+` FROM result WHERE batch_no = $1 AND idx = $2`, at.batchNo, at.index))
				if err != nil {
					return err
				}
				res.Batch = ids[at.batchNo]
				g.Samples = append(g.Samples, res)
			}
			done = append(done, g.LetterGroup)
		}
		return nil
	})
	return done, err
}
