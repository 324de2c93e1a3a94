package producer

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"iter"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/klauspost/compress/zstd"

	"github.com/exhume/exhume/internal/fault"
	"github.com/exhume/exhume/schemas"
)

// fakeFleet is a control API and a queue in memory.
type fakeFleet struct {
	batch      schemas.Summary
	sealed     int64
	stored     []int64
	sample     []int64
	groups     []int
	perMessage int
	fail       int // the publication that fails, from 1

	kept     []schemas.RequestItem
	chunks   []schemas.Kept
	old      bool  // it keeps nothing
	failKeep int64 // the index at which keeping fails, 0 for none
}

func (f *fakeFleet) Kept(context.Context, string) (int64, error) {
	if f.old {
		return 0, fault.New(schemas.CodeNoCollector, "nobody answers")
	}
	return int64(len(f.kept)), nil
}

func (f *fakeFleet) Keep(_ context.Context, k schemas.Kept) error {
	if f.old || k.Batch != f.batch.ID || k.First != int64(len(f.kept)) {
		return fmt.Errorf("keep %s from %d, %d are kept", k.Batch, k.First, len(f.kept))
	}
	if f.failKeep > 0 && f.failKeep <= k.Last {
		return errors.New("the ledger is away")
	}
	d, err := zstd.NewReader(nil)
	if err != nil {
		return err
	}
	defer d.Close()
	text, err := d.DecodeAll(k.Body, nil)
	if err != nil {
		return err
	}
	var items []schemas.RequestItem
	if err := json.Unmarshal(text, &items); err != nil {
		return err
	}
	if int64(len(items)) != k.Last-k.First+1 || len(items) > schemas.MaxKept {
		return fmt.Errorf("%d requests from %d to %d", len(items), k.First, k.Last)
	}
	f.kept, f.chunks = append(f.kept, items...), append(f.chunks, k)
	return nil
}

// publishable says whether all requests up to one are kept.
func (f *fakeFleet) publishable(last schemas.Request) error {
	if !f.old && int64(len(f.kept)) <= last.Index {
		return fmt.Errorf("item %d is published, and %d are kept", last.Index, len(f.kept))
	}
	return nil
}

func (f *fakeFleet) Open(_ context.Context, b schemas.Batch) (schemas.Summary, error) {
	if f.batch.ID == "" {
		b.State = schemas.StateOpen
		f.batch.Batch = b
	}
	return f.batch, nil
}

func (f *fakeFleet) Seal(_ context.Context, _ string, total int64, sha string) (schemas.Summary, error) {
	f.sealed = total
	f.batch.State, f.batch.Total, f.batch.ManifestSHA256, f.batch.SealedAt = schemas.StateSealed, total, sha, time.Unix(1, 0)
	return f.batch, nil
}

func (f *fakeFleet) LastIndex(context.Context, string) (int64, error) {
	return int64(len(f.stored)) - 1, nil
}

func (f *fakeFleet) Publish(_ context.Context, rs []schemas.Request, perMessage int) error {
	f.groups = append(f.groups, len(rs))
	f.perMessage = perMessage
	if err := f.publishable(rs[len(rs)-1]); err != nil {
		return err
	}
	if len(f.groups) == f.fail {
		f.stored = append(f.stored, rs[0].Index) // a first part
		return errors.New("the broker is away")
	}
	for _, r := range rs {
		if r.Batch != f.batch.ID {
			return errors.New("request of another batch")
		}
		f.stored = append(f.stored, r.Index)
	}
	return nil
}

func (f *fakeFleet) LastCanary(context.Context, string) (int64, error) {
	if len(f.sample) == 0 {
		return -1, nil
	}
	return f.sample[len(f.sample)-1], nil
}

func (f *fakeFleet) PublishCanary(_ context.Context, rs []schemas.Request) error {
	if err := f.publishable(rs[len(rs)-1]); err != nil {
		return err
	}
	for _, r := range rs {
		f.sample = append(f.sample, r.Index)
	}
	return nil
}

func itemsTo(n int64) iter.Seq2[schemas.Request, error] {
	return func(yield func(schemas.Request, error) bool) {
		for i := range n {
			if !yield(schemas.Request{Index: i, Output: strconv.FormatInt(i, 10)}, nil) {
				return
			}
		}
	}
}

func submission(total, items int64) Submission {
	return Submission{
		Batch: schemas.Batch{ID: "b", Manifest: "m.csv", ManifestSHA256: "aa", Settings: schemas.Settings{Root: "/r"}},
		Total: total, Items: itemsTo(items),
	}
}

func TestSubmit(t *testing.T) {
	t.Parallel()
	f := &fakeFleet{fail: 2}
	s := submission(2500, 2500)
	var told []int64
	s.Progress = func(n int64) { told = append(told, n) }
	if _, err := Submit(t.Context(), f, f, s); err == nil || f.sealed != 0 {
		t.Fatalf("a failed publication: error %v, sealed %d", err, f.sealed)
	}
	got, err := Submit(t.Context(), f, f, s)
	if err != nil || got.Published != 1987 || !got.Known || f.sealed != 2500 {
		t.Errorf("continued: %+v, %v", got, err)
	}
	for i, index := range f.stored {
		if int64(i) != index {
			t.Fatalf("request %d has index %d", i, index)
		}
	}
	if diff := cmp.Diff([]int64{512, 1025, 2049, 2500}, told); diff != "" {
		t.Error(diff)
	}
	got, err = Submit(t.Context(), f, f, s)
	if err != nil || got.Published != 0 || !got.Known || len(f.stored) != 2500 {
		t.Errorf("again: %+v, %v", got, err)
	}
	if f.perMessage != 9 {
		t.Errorf("%d requests in a message", f.perMessage)
	}
	f.batch.State, f.batch.Counts.Restored = schemas.StateSucceeded, 2500
	groups := len(f.groups)
	if got, err = Submit(t.Context(), f, f, s); err != nil || !got.Known || got.Before.Restored != 2500 || len(f.groups) != groups {
		t.Errorf("ended: %+v, %v", got, err)
	}
}

func TestSubmitRefuses(t *testing.T) {
	t.Parallel()
	broken := errors.New("broken row")
	for _, c := range []struct {
		name   string
		change func(*Submission)
		want   string
	}{
		{"bad name", func(s *Submission) { s.Batch.ID = "a b" }, "name"},
		{"another manifest", func(s *Submission) { s.Batch.ManifestSHA256 = "bb" }, "another manifest"},
		{"other settings", func(s *Submission) { s.Batch.Settings.Root = "/x" }, "other settings"},
		{"other archive", func(s *Submission) { s.Batch.Archive = "x" }, "other settings"},
		{"fewer items", func(s *Submission) { s.Items = itemsTo(4) }, "m.csv: it does not have the 5 items"},
		{"more items", func(s *Submission) { s.Items = itemsTo(6) }, "m.csv: it does not have the 5 items"},
		{"a gap", func(s *Submission) {
			s.Items = func(yield func(schemas.Request, error) bool) {
				_ = yield(schemas.Request{Index: 0}, nil) && yield(schemas.Request{Index: 2}, nil)
			}
		}, "does not have"},
		{"a broken row", func(s *Submission) {
			s.Items = func(yield func(schemas.Request, error) bool) { yield(schemas.Request{}, broken) }
		}, "broken row"},
	} {
		t.Run(c.name, func(t *testing.T) {
			t.Parallel()
			f := &fakeFleet{}
			if _, err := f.Open(t.Context(), submission(5, 5).Batch); err != nil {
				t.Fatal(err)
			}
			s := submission(5, 5)
			c.change(&s)
			_, err := Submit(t.Context(), f, f, s)
			if err == nil || !strings.Contains(err.Error(), c.want) || f.sealed != 0 {
				t.Errorf("error %v, sealed %d", err, f.sealed)
			}
		})
	}
}

func TestSubmitPublishesTheSampleFirst(t *testing.T) {
	t.Parallel()
	f := &fakeFleet{}
	s := submission(1000, 1000)
	s.Batch.Terms.Canary = &schemas.Canary{Size: 30}
	if _, err := Submit(t.Context(), f, f, s); err != nil {
		t.Fatal(err)
	}
	if len(f.sample) != 30 || len(f.stored) != 970 {
		t.Fatalf("%d in the sample, %d others", len(f.sample), len(f.stored))
	}
	for i := 1; i < len(f.sample); i++ {
		if gap := f.sample[i] - f.sample[i-1]; gap < 33 || gap > 34 {
			t.Errorf("the sample is not spread evenly: %d and %d", f.sample[i-1], f.sample[i])
		}
	}
	all := slices.Concat(f.sample, f.stored)
	slices.Sort(all)
	for i, index := range all {
		if index != int64(i) {
			t.Fatalf("item %d is there as %d", i, index)
		}
	}
}
