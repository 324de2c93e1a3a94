package app

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"iter"

	"golang.org/x/sync/errgroup"

	"github.com/exhume/exhume/internal/archive"
	"github.com/exhume/exhume/internal/destination"
	"github.com/exhume/exhume/internal/fault"
	"github.com/exhume/exhume/internal/objects"
	"github.com/exhume/exhume/internal/restore"
	"github.com/exhume/exhume/schemas"
)

const (
	// planGroup is how many items are looked up in one statement.
	planGroup = 512
	// planGroups is how many groups are judged at a time, and planThreads how
	// many items of each: a server answers many questions at once.
	planGroups, planThreads = 4, 16
)

// PlanOptions say what is planned.
type PlanOptions struct {
	// BatchOptions are those of the batch. Its name plays no part.
	BatchOptions
	// Item is told of each item, in the order of the manifest. Its error ends
	// planning.
	Item func(restore.PlanItem) error
	// Planned is told now and then how many of the items are planned.
	Planned func(done, total int64)
}

// PlanTotals say what restoring a manifest would do.
type PlanTotals struct {
	Manifest  string            `json:"manifest"`
	Archive   string            `json:"archive"`
	Root      string            `json:"root"`
	Overwrite schemas.Overwrite `json:"overwrite"`
	// Rows = Invalid + Items, Items = Restore + Replace + Unchanged + Fail.
	Rows         int64                  `json:"rows"`
	Invalid      int64                  `json:"invalid"`
	Items        int64                  `json:"items"`
	Restore      int64                  `json:"restore"`
	Replace      int64                  `json:"replace"`
	Unchanged    int64                  `json:"unchanged"`
	Fail         int64                  `json:"fail"`
	FailedByCode map[schemas.Code]int64 `json:"failed_by_code,omitempty"`
	// Bytes is how many would be written.
	Bytes int64 `json:"bytes"`
	// FreeBytes is the room at the destination, where that can be told.
	FreeBytes *int64 `json:"free_bytes,omitempty"`
	// Estimate is how long it would take, where something is known of the speed.
	Estimate *PlanEstimate `json:"estimate,omitempty"`
	// Notes are lines for people about what cannot be told, or may go wrong.
	Notes []string `json:"notes,omitempty"`
}

// Plan tells what BatchRestore would do with a manifest, and changes nothing: it
// looks every item up and compares what stands under its output. The error is an
// InvalidManifestError where invalid rows would keep the batch from being
// submitted; the others are planned nevertheless. In any case the totals hold what
// is known by then.
func Plan(ctx context.Context, cfg *Config, o PlanOptions) (t PlanTotals, err error) {
	strict := !o.SkipInvalid
	o.SkipInvalid, o.CheckOnly = true, false
	checked, s, done, err := o.prepare(ctx, cfg)
	t = PlanTotals{
		Manifest: o.Manifest, Archive: s.Batch.Archive, Root: s.Batch.Settings.Root, Overwrite: s.Batch.Settings.Overwrite,
		Rows: checked.Rows, Invalid: checked.Rejected, Items: checked.Total,
	}
	if err != nil {
		return t, err
	}
	defer done()
	if err := t.plan(ctx, cfg, o, s.Batch.Settings, s.Items); err != nil {
		if ctx.Err() != nil {
			err = ErrInterrupted
		}
		return t, err
	}
	if t.FreeBytes != nil && *t.FreeBytes < t.Bytes {
		t.note("the destination has room for %d bytes, %d fewer than are to be written", *t.FreeBytes, t.Bytes-*t.FreeBytes)
	}
	t.estimate(ctx, cfg)
	if strict && t.Invalid > 0 {
		return t, &InvalidManifestError{t.Manifest, t.Items, t.Invalid}
	}
	return t, nil
}

func (t *PlanTotals) plan(ctx context.Context, cfg *Config, o PlanOptions, s schemas.Settings, items iter.Seq2[schemas.Request, error]) (err error) {
	from, err := openSource(ctx, cfg)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, from.Close()) }()
	v, err := openView(cfg, s.Root)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, v.close()) }()
	t.FreeBytes = v.free
	if v.note != "" {
		t.note("%s", v.note)
	}
	var planned int64
	return planAll(ctx, restore.NewPlanner(stock{from}, v.look, s, planThreads), items, func(d restore.PlanItem) error {
		t.add(d)
		if planned++; planned%planGroup == 0 {
			o.Planned(planned, t.Items)
		}
		return o.Item(d)
	})
}

func (t *PlanTotals) note(format string, args ...any) {
	t.Notes = append(t.Notes, fmt.Sprintf(format, args...))
}

func (t *PlanTotals) add(d restore.PlanItem) {
	switch d.Verdict {
	case restore.VerdictRestore:
		t.Restore++
		t.Bytes += d.Size
	case restore.VerdictReplace:
		t.Replace++
		t.Bytes += d.Size
	case restore.VerdictUnchanged:
		t.Unchanged++
	default:
		t.Fail++
		if t.FailedByCode == nil {
			t.FailedByCode = map[schemas.Code]int64{}
		}
		t.FailedByCode[d.Code]++
	}
}

// planAll plans items in groups, a few at a time, and hands them on in their order.
func planAll(ctx context.Context, p *restore.Planner, items iter.Seq2[schemas.Request, error], each func(restore.PlanItem) error) error {
	g, ctx := errgroup.WithContext(ctx)
	queue := make(chan chan []restore.PlanItem, planGroups-1)
	begin := func(group []schemas.Request) error {
		planned := make(chan []restore.PlanItem, 1)
		select {
		case queue <- planned:
		case <-ctx.Done():
			return ctx.Err()
		}
		g.Go(func() error {
			plan, err := p.Plan(ctx, group)
			if err == nil {
				planned <- plan
			}
			return err
		})
		return nil
	}
	g.Go(func() error {
		defer close(queue)
		var group []schemas.Request
		for q, err := range items {
			if err != nil {
				return err
			}
			if group = append(group, q); len(group) < planGroup {
				continue
			}
			if err := begin(group); err != nil {
				return err
			}
			group = nil
		}
		if len(group) == 0 {
			return nil
		}
		return begin(group)
	})
	g.Go(func() error {
		for planned := range queue {
			select {
			case plan := <-planned:
				for i := range plan {
					if err := each(plan[i]); err != nil {
						return err
					}
				}
			case <-ctx.Done():
				return ctx.Err()
			}
		}
		return nil
	})
	return g.Wait()
}

// stock is the archive as a planner sees it.
type stock struct{ *source }

// Readable implements restore.Stock. What lies elsewhere is opened, and closed
// again: only that tells whether it may be read.
func (s stock) Readable(ctx context.Context, a schemas.Artifact) error {
	if a.Stored != restore.Elsewhere {
		return archive.CheckCodec(a)
	}
	content, err := s.Open(ctx, a)
	if err != nil {
		return err
	}
	return content.Close()
}

// view is a destination that is looked at and never changed.
type view struct {
	look  func() (restore.Look, error)
	close func() error
	free  *int64
	note  string
}

// openView opens a destination to be looked at. One that cannot be used fails
// each item, as it does when they are restored.
func openView(cfg *Config, root string) (view, error) {
	v := view{close: func() error { return nil }}
	open := v.openTree
	if isBucket(root) {
		open = v.openBucket
	}
	err := open(cfg, root)
	if _, ok := errors.AsType[*fault.Error](err); ok {
		v.look = func() (restore.Look, error) { return nil, err }
		return v, nil
	}
	return v, err
}

func (v *view) openBucket(cfg *Config, root string) error {
	name, prefix, err := objects.ParseURL(root)
	if err != nil {
		return err
	}
	store, err := openStore(cfg)
	if err != nil {
		return err
	}
	b, err := destination.ViewBucket(store, name, prefix)
	if err != nil {
		store.Close()
		return err
	}
	v.look = func() (restore.Look, error) { return b, nil }
	v.close = func() error { store.Close(); return nil }
	return nil
}

func (v *view) openTree(cfg *Config, root string) error {
	tree, err := destination.ViewTree(root)
	if err != nil {
		return err
	}
	v.close = tree.Close
	v.look = func() (restore.Look, error) { return tree.Look(), nil }
	if cfg.NATS.URL != "" || cfg.NATS.Context != "" {
		v.fromAfar(root, tree)
		return nil
	}
	if free := tree.Free(); free >= 0 {
		v.free = &free
	}
	return nil
}

// fromAfar is for the directory of a fleet's workers, who may run on other hosts
// and as other users.
func (v *view) fromAfar(root string, tree *destination.TreeView) {
	v.note = fmt.Sprintf("the fleet's workers may see another %s than the one here", root)
	v.look = func() (restore.Look, error) { return afar{tree.Look()}, nil }
	if !tree.Exists() {
		v.note = fmt.Sprintf("there is no %s here, so what stands there where the fleet's workers run is not known", root)
		v.look = func() (restore.Look, error) { return unseen{}, nil }
	}
}

// afar looks at what others will write.
type afar struct{ *destination.TreeLook }

// Writable implements restore.Look: it is for the workers to say.
func (afar) Writable(string) error { return nil }

// unseen cannot be looked at.
type unseen struct{}

func (unseen) Compare(context.Context, string, int64, string) (bool, error) {
	return false, restore.ErrUnseen
}
func (unseen) Writable(string) error { return nil }
func (unseen) Close()                {}

// PlanEstimate is how long the work would take at the speed of recent batches.
type PlanEstimate struct {
	Seconds float64 `json:"seconds"`
	// Batches is how many the speed was taken from.
	Batches        int     `json:"batches"`
	ItemsPerSecond float64 `json:"items_per_second"`
	BytesPerSecond float64 `json:"bytes_per_second"`
}

const (
	// speedBatches is how many of the newest batches tell the speed, of so many
	// that are looked at.
	speedBatches, speedLooked = 5, 200
	// speedItems is how many items a batch must have restored to tell it: in
	// smaller ones starting and ending count for more.
	speedItems = 100
)

// estimate says how long the work would take.
func (t *PlanTotals) estimate(ctx context.Context, cfg *Config) {
	remote := cfg.NATS.URL != "" || cfg.NATS.Context != ""
	if remote && cfg.Exhume.LedgerURL == "" {
		t.note("the fleet's ledger is not at hand (EXHUME_LEDGER_URL), so no estimate")
		return
	}
	recent, err := recentBatches(ctx, cfg)
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		t.note("no estimate: %v", err)
		return
	}
	e := speedOf(recent)
	if e == nil {
		t.note("no batch of %d items or more has ended here yet, so no estimate", speedItems)
		return
	}
	e.Seconds = float64(t.Restore+t.Replace) / e.ItemsPerSecond
	if e.BytesPerSecond > 0 {
		e.Seconds = max(e.Seconds, float64(t.Bytes)/e.BytesPerSecond)
	}
	t.Estimate = e
}

func recentBatches(ctx context.Context, cfg *Config) ([]schemas.Summary, error) {
	l, err := OpenLedgerReader(ctx, cfg)
	if err != nil {
		return nil, err
	}
	defer l.Close() //nolint:errcheck // opened for reading
	return l.Batches(ctx, speedLooked)
}

// speedOf is the speed of the newest of these batches, which stand in their
// order, newest first; nil where none of them tells it.
func speedOf(batches []schemas.Summary) *PlanEstimate {
	var e PlanEstimate
	var items, bytes, seconds float64
	for _, b := range batches {
		took := b.EndedAt.Sub(b.CreatedAt).Seconds()
		if !b.State.Final() || b.Counts.Restored < speedItems || took <= 0 {
			continue
		}
		items += float64(b.Counts.Restored)
		bytes += float64(b.Counts.Bytes)
		seconds += took
		if e.Batches++; e.Batches == speedBatches {
			break
		}
	}
	if e.Batches == 0 {
		return nil
	}
	e.ItemsPerSecond, e.BytesPerSecond = items/seconds, bytes/seconds
	return &e
}
