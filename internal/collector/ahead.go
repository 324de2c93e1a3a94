package collector

import "github.com/exhume/exhume/schemas"

// ahead is what stands in the evidence and perhaps not yet in the ledger: the
// lines of an append whose transaction did not commit. They are not appended
// again, and the ledger's position stays before them until it covers them.
type ahead struct {
	items    map[string]*indexes         // by batch
	attempts map[string]map[attempt]bool // by batch
	starts   map[string]bool             // batches
	ends     map[string]bool
	// changes are ids of what was done to batches or to the fleet.
	changes map[string]bool
}

// attempt is one failed attempt at an item of a batch.
type attempt struct {
	index  int64
	number int
}

func newAhead() ahead {
	return ahead{
		items: map[string]*indexes{}, attempts: map[string]map[attempt]bool{}, starts: map[string]bool{}, ends: map[string]bool{},
		changes: map[string]bool{},
	}
}

// holds says whether the position must stay. The line of a start or a change is
// no reason: nobody may ever ask for that again.
func (a *ahead) holds() bool { return len(a.items)+len(a.attempts)+len(a.ends) > 0 }

func (a *ahead) empty() bool { return !a.holds() && len(a.starts)+len(a.changes) == 0 }

func (a *ahead) add(records ...schemas.Record) {
	for i := range records {
		switch r := &records[i]; {
		case r.ChangeID != "":
			a.changes[r.ChangeID] = true
		case r.Batch == "": // not of a batch
		case r.Index != nil && r.Action == schemas.ActionRestoreRetry:
			if a.attempts[r.Batch] == nil {
				a.attempts[r.Batch] = map[attempt]bool{}
			}
			a.attempts[r.Batch][attempt{*r.Index, r.Attempt}] = true
		case r.Index != nil:
			if a.items[r.Batch] == nil {
				a.items[r.Batch] = &indexes{}
			}
			a.items[r.Batch].add(*r.Index)
		case r.Phase == schemas.PhaseStart:
			a.starts[r.Batch] = true
		case r.Phase == schemas.PhaseEnd:
			a.ends[r.Batch] = true
		}
	}
}

func (a *ahead) has(r *schemas.Record) bool {
	switch {
	case r.ChangeID != "":
		return a.changes[r.ChangeID]
	case r.Index != nil && r.Action == schemas.ActionRestoreRetry:
		return a.attempts[r.Batch][attempt{*r.Index, r.Attempt}]
	case r.Index != nil:
		return a.items[r.Batch].has(*r.Index)
	case r.Phase == schemas.PhaseStart:
		return a.starts[r.Batch]
	default:
		return a.ends[r.Batch]
	}
}

// without leaves out the records that are there.
func (a *ahead) without(records []schemas.Record) []schemas.Record {
	if a.empty() {
		return records
	}
	var out []schemas.Record
	for i := range records {
		if !a.has(&records[i]) {
			out = append(out, records[i])
		}
	}
	return out
}

// remove forgets records.
func (a *ahead) remove(records []schemas.Record) {
	for i := range records {
		switch r := &records[i]; {
		case r.ChangeID != "":
			delete(a.changes, r.ChangeID)
		case r.Index != nil && r.Action == schemas.ActionRestoreRetry:
			a.removeAttempt(r.Batch, attempt{*r.Index, r.Attempt})
		case r.Index != nil:
			a.removeItem(r.Batch, *r.Index)
		case r.Phase == schemas.PhaseStart:
			delete(a.starts, r.Batch)
		default:
			delete(a.ends, r.Batch)
		}
	}
}

func (a *ahead) removeItem(batch string, index int64) {
	if of := a.items[batch]; of != nil {
		if of.remove(index); of.n == 0 {
			delete(a.items, batch)
		}
	}
}

func (a *ahead) removeAttempt(batch string, of attempt) {
	if delete(a.attempts[batch], of); len(a.attempts[batch]) == 0 {
		delete(a.attempts, batch)
	}
}

// forget forgets all about a batch.
func (a *ahead) forget(batch string) {
	delete(a.items, batch)
	delete(a.attempts, batch)
	delete(a.starts, batch)
	delete(a.ends, batch)
}

// batches are those that it knows anything of.
func (a *ahead) batches() map[string]bool {
	all := map[string]bool{}
	for id := range a.items {
		all[id] = true
	}
	for id := range a.attempts {
		all[id] = true
	}
	for _, of := range []map[string]bool{a.starts, a.ends} {
		for id := range of {
			all[id] = true
		}
	}
	return all
}
