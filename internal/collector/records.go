package collector

import (
	"cmp"
	"fmt"

	"github.com/exhume/exhume/schemas"
)

// ItemRecord is the evidence of one result. A result outside batches has no
// index.
func ItemRecord(o Options, r *schemas.Result) schemas.Record {
	rec := schemas.Record{
		Action: schemas.ActionRestore, Actor: r.Actor, Attempt: r.Attempts, Batch: r.Batch, Outcome: r.Outcome,
		Path: r.Target, Repo: r.Repo, Tombstone: r.Tombstone, Worker: r.Worker,
	}
	if r.Batch != "" {
		rec.Index = &r.Index
	}
	if o.Timings {
		rec.DurationMS = &r.Durations.Total
	}
	if r.Outcome == schemas.OutcomeSkipped || r.Outcome == schemas.OutcomeCancelled {
		rec.Action = schemas.ActionRestoreSkip
		rec.Code, rec.Reason = r.Code, r.Detail
		return rec
	}
	if r.Outcome == schemas.OutcomeFailed {
		rec.Action = schemas.ActionRestoreFail
		rec.Code, rec.Reason = r.Code, r.Detail
		rec.Backend, rec.URL = o.Backend, o.URL
		return rec
	}
	rec.SHA256, rec.Size = r.SHA256, &r.Size
	if o.Timings {
		rec.DecompressionMS, rec.WriteMS = &r.Durations.Decode, &r.Durations.Write
	}
	return rec
}

// retryRecord is the evidence of a failed attempt that is followed by another. It
// has no path: nothing stands there yet.
func retryRecord(o Options, f *schemas.Failure) schemas.Record {
	rec := schemas.Record{
		Action: schemas.ActionRestoreRetry, Actor: f.Actor, Attempt: f.Number, Backend: o.Backend, Batch: f.Batch, Code: f.Code,
		Index: &f.Index, Reason: f.Detail, Tombstone: f.Tombstone, URL: o.URL, Worker: f.Worker,
	}
	if !f.NextTry.IsZero() {
		rec.NextTry = f.NextTry.UTC().Format("2006-01-02T15:04:05.000Z")
	}
	return rec
}

// startRecord says all that the same submission is known by when it comes again.
func startRecord(b schemas.Batch) schemas.Record {
	rec := schemas.Record{
		Action: schemas.ActionBatchRestore, Phase: schemas.PhaseStart, Actor: b.Actor, Batch: b.ID, Reason: b.Note,
		Manifest: b.Manifest, ManifestSHA256: b.ManifestSHA256, Root: b.Settings.Root, Overwrite: b.Settings.Overwrite, URL: b.Archive,
	}
	if b.Settings.Mode != 0 {
		rec.Mode = fmt.Sprintf("%04o", b.Settings.Mode)
	}
	return rec
}

func endRecord(o Options, s schemas.Summary) schemas.Record {
	rec := schemas.Record{
		Action: schemas.ActionBatchRestore, Phase: schemas.PhaseEnd, Actor: s.Actor, Batch: s.ID,
		Manifest: s.Manifest, ManifestSHA256: s.ManifestSHA256, Root: s.Settings.Root, URL: s.Archive,
		State: s.State, Total: &s.Total, Counts: &s.Counts,
	}
	if o.Timings {
		ms := float64(s.EndedAt.Sub(s.CreatedAt).Microseconds()) / 1000
		rec.DurationMS = &ms
	}
	return rec
}

// controlRecord is the evidence of a change to how a batch is worked on.
func controlRecord(s schemas.Summary, e schemas.BatchEvent) schemas.Record {
	rec := schemas.Record{
		Action: schemas.ActionBatchControl, Actor: cmp.Or(e.By, itself), Batch: e.Batch, Change: e.Change, ChangeID: e.ID,
		Reason: e.Note, State: e.To, StateReason: e.Reason, Counts: &s.Counts,
	}
	if !s.SealedAt.IsZero() {
		rec.Total = &s.Total
	}
	return rec
}

// itself is who does what nobody has asked for.
const itself = "exhume"

// steerRecord is the evidence of a change to how all batches are worked on.
func steerRecord(by schemas.Command, steering string) schemas.Record {
	return schemas.Record{
		Action: schemas.ActionBatchControl, Actor: cmp.Or(by.Actor, itself), Change: schemas.ChangeSet, ChangeID: by.ID,
		Reason: by.Note, Steering: steering,
	}
}
