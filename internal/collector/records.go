package collector

import (
	"cmp"

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

func startRecord(b schemas.Batch) schemas.Record {
	return schemas.Record{
		Action: schemas.ActionBatchRestore, Phase: schemas.PhaseStart, Actor: b.Actor, Batch: b.ID, Reason: b.Note,
		Manifest: b.Manifest, Root: b.Settings.Root, URL: b.Archive,
	}
}

func (b *Book) endRecord(s schemas.Summary) schemas.Record {
	rec := schemas.Record{
		Action: schemas.ActionBatchRestore, Phase: schemas.PhaseEnd, Actor: s.Actor, Batch: s.ID,
		Manifest: s.Manifest, ManifestSHA256: s.ManifestSHA256, Root: s.Settings.Root, URL: s.Archive,
		State: s.State, Total: &s.Total, Counts: &s.Counts,
	}
	if b.opts.Timings {
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
