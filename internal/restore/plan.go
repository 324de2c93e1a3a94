package restore

import (
	"context"
	"errors"
	"io/fs"

	"golang.org/x/sync/errgroup"

	"github.com/exhume/exhume/internal/fault"
	"github.com/exhume/exhume/schemas"
)

// BytesState says where the bytes of an item are.
type BytesState string

// The states of bytes.
const (
	BytesPresent   BytesState = "present"
	BytesPurged    BytesState = "purged"
	BytesMissing   BytesState = "missing"
	BytesElsewhere BytesState = "elsewhere" // outside the archive, at its object URL
)

// TargetState says what stands under an output.
type TargetState string

// The states of targets.
const (
	TargetNew       TargetState = "new"
	TargetIdentical TargetState = "identical"
	TargetDiffers   TargetState = "differs"
)

// Verdict is what restoring would do with an item.
type Verdict string

// The verdicts.
const (
	VerdictRestore   Verdict = "restore"
	VerdictReplace   Verdict = "replace" // whatever stands there
	VerdictUnchanged Verdict = "unchanged"
	VerdictFail      Verdict = "fail"
)

// PlanItem is what restoring would do with one item, as far as that can be told
// without reading its bytes from the archive and without writing anything.
type PlanItem struct {
	// Index counts the valid rows of the manifest from 0.
	Index     int64             `json:"index"`
	Tombstone string            `json:"tombstone"`
	Output    string            `json:"output"`
	Actor     string            `json:"actor"`
	Labels    map[string]string `json:"labels,omitempty"`
	// Target is the absolute place of the output.
	Target string `json:"target"`
	// Found says whether the archive has the item. What it says of the bytes
	// comes with it: where they are, the size (bytes) and SHA-256 (lower-case
	// hex) of the content.
	Found      bool       `json:"found"`
	BytesState BytesState `json:"bytes_state,omitempty"`
	Size       int64      `json:"size"`
	SHA256     string     `json:"sha256,omitempty"`
	// TargetState is empty when it cannot be told.
	TargetState TargetState `json:"target_state,omitempty"`
	Verdict     Verdict     `json:"verdict"`
	// Code and Reason say why the item would fail.
	Code   schemas.Code `json:"code,omitempty"`
	Reason string       `json:"reason,omitempty"`
}

// Stock is the archive as a planner sees it.
type Stock interface {
	// Lookup finds many tombstones in one statement; unknown ones are absent.
	// Those whose bytes are outside the archive are stored Elsewhere.
	Lookup(ctx context.Context, tombstones []string) (map[string]schemas.Artifact, error)
	// Readable says why the bytes of an artifact cannot be read or decoded, as
	// far as that can be told without reading them.
	Readable(ctx context.Context, a schemas.Artifact) error
}

// Look looks at the outputs of one group and changes nothing.
type Look interface {
	// Compare says whether this content stands under output; fs.ErrNotExist when
	// nothing does, ErrUnseen when the destination cannot be looked at.
	Compare(ctx context.Context, output string, size int64, sha256 string) (same bool, err error)
	// Writable says what would keep an output from being written.
	Writable(output string) error
	// Close ends it.
	Close()
}

// ErrUnseen says that a destination cannot be looked at from here.
var ErrUnseen = errors.New("the destination cannot be looked at from here")

// Planner tells what Restorer would do. It is safe for concurrent use.
type Planner struct {
	stock     Stock
	look      func() (Look, error)
	root      string
	overwrite schemas.Overwrite
	threads   int
}

// NewPlanner makes a planner for the settings of a batch, which looks at so many
// outputs of a group at a time.
func NewPlanner(stock Stock, look func() (Look, error), s schemas.Settings, threads int) *Planner {
	return &Planner{stock: stock, look: look, root: s.Root, overwrite: s.Overwrite, threads: threads}
}

// Plan judges a group of items; what it says stands in the order of the
// requests. An error means that the archive could not be read, that the
// destination is away or that the context ended.
func (p *Planner) Plan(ctx context.Context, items []schemas.Request) ([]PlanItem, error) {
	tombstones := make([]string, len(items))
	for i := range items {
		tombstones[i] = items[i].Tombstone
	}
	found, err := p.stock.Lookup(ctx, tombstones)
	if err != nil {
		return nil, err
	}
	look, broken := p.look()
	if broken == nil {
		defer look.Close()
	}
	plan := make([]PlanItem, len(items))
	g, ctx := errgroup.WithContext(ctx)
	g.SetLimit(p.threads)
	for i := range items {
		d, q := &plan[i], &items[i]
		d.Index, d.Tombstone, d.Output, d.Actor, d.Labels = q.Index, q.Tombstone, q.Output, q.Actor, q.Labels
		d.Target = target(p.root, q.Output)
		a, ok := found[q.Tombstone]
		if err := d.admit(a, ok); err != nil {
			_ = d.fail(err) // the archive's own word is final
			continue
		}
		g.Go(func() error {
			if broken != nil {
				return d.fail(broken)
			}
			return d.fail(p.judge(ctx, look, d, a))
		})
	}
	return plan, g.Wait()
}

// admit notes what the archive says of an item.
func (d *PlanItem) admit(a schemas.Artifact, found bool) error {
	if !found {
		return notFound(d.Tombstone)
	}
	d.Found, d.Size, d.SHA256 = true, a.Size, a.SHA256
	switch {
	case a.Stored == Elsewhere:
		d.BytesState = BytesElsewhere
	case a.Stored >= 0:
		d.BytesState = BytesPresent
	default:
		err := withoutBytes(a)
		d.BytesState = BytesMissing
		if fault.Is(err, schemas.CodeArtifactPurged) {
			d.BytesState = BytesPurged
		}
		return err
	}
	return nil
}

// judge compares an item with what stands under its output, as a restorer does
// it, and then asks what could go wrong with it if it is to be written.
func (p *Planner) judge(ctx context.Context, look Look, d *PlanItem, a schemas.Artifact) error {
	always := p.overwrite == schemas.OverwriteAlways
	same, err := look.Compare(ctx, d.Output, a.Size, a.SHA256)
	switch {
	case ctx.Err() != nil:
		return ctx.Err()
	case errors.Is(err, ErrUnseen):
		d.Verdict = VerdictRestore
		return p.stock.Readable(ctx, a)
	case errors.Is(err, fs.ErrNotExist):
		d.TargetState, d.Verdict = TargetNew, VerdictRestore
	case always && fault.Is(err, schemas.CodeDestinationDenied):
		d.Verdict = VerdictReplace // what may not be read may be replaced
	case err != nil:
		return err
	case same:
		d.TargetState, d.Verdict = TargetIdentical, VerdictUnchanged
		if !always {
			return nil
		}
		d.Verdict = VerdictReplace
	default:
		d.TargetState, d.Verdict = TargetDiffers, VerdictReplace
		if !always && p.overwrite != schemas.OverwriteIfDifferent {
			return fault.New(schemas.CodeDestinationExists, "output %q: other content stands there", d.Output)
		}
	}
	if err := p.stock.Readable(ctx, a); err != nil {
		return err
	}
	return look.Writable(d.Output)
}

// fail notes why the item would fail, if it would. What is no fault of the item
// comes back (see judge).
func (d *PlanItem) fail(err error) error {
	if err == nil {
		return nil
	}
	var r schemas.Result
	if err := judge(&r, err); err != nil {
		return err
	}
	d.Verdict, d.Code, d.Reason = VerdictFail, r.Code, r.Detail
	return nil
}
