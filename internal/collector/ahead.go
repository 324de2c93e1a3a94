package collector

import "github.com/exhume/exhume/schemas"

// ahead is what stands in the evidence and perhaps not yet in the ledger: the
// lines of an append whose transaction did not commit. They are not appended
// again, and the ledger's position stays before them until it covers them.
type ahead struct {
	items  map[string]map[int64]bool // indexes by batch
	starts map[string]bool           // batches
	ends   map[string]bool
	// changes are ids of what was done to batches or to the fleet.
	changes map[string]bool
}

func newAhead() ahead {
	return ahead{items: map[string]map[int64]bool{}, starts: map[string]bool{}, ends: map[string]bool{}, changes: map[string]bool{}}
}

// holds says whether the position must stay. The line of a start or a change is
// no reason: nobody may ever ask for that again.
func (a *ahead) holds() bool { return len(a.items) > 0 || len(a.ends) > 0 }

func (a *ahead) add(records ...schemas.Record) {
	for i := range records {
		switch r := &records[i]; {
		case r.ChangeID != "":
			a.changes[r.ChangeID] = true
		case r.Batch == "": // not of a batch
		case r.Index != nil:
			if a.items[r.Batch] == nil {
				a.items[r.Batch] = map[int64]bool{}
			}
			a.items[r.Batch][*r.Index] = true
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
	case r.Index != nil:
		return a.items[r.Batch][*r.Index]
	case r.Phase == schemas.PhaseStart:
		return a.starts[r.Batch]
	default:
		return a.ends[r.Batch]
	}
}

// without leaves out the records that are there.
func (a *ahead) without(records []schemas.Record) []schemas.Record {
	if len(a.items)+len(a.starts)+len(a.ends)+len(a.changes) == 0 {
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
		case r.Index != nil:
			if of := a.items[r.Batch]; of != nil {
				if delete(of, *r.Index); len(of) == 0 {
					delete(a.items, r.Batch)
				}
			}
		case r.Phase == schemas.PhaseStart:
			delete(a.starts, r.Batch)
		default:
			delete(a.ends, r.Batch)
		}
	}
}

// batches are those that it knows anything of.
func (a *ahead) batches() map[string]bool {
	all := map[string]bool{}
	for id := range a.items {
		all[id] = true
	}
	for _, of := range []map[string]bool{a.starts, a.ends} {
		for id := range of {
			all[id] = true
		}
	}
	return all
}
