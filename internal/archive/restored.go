package archive

import (
	"context"
	"time"
)

// RestoreEvent says that an item was restored.
type RestoreEvent struct {
	// ID is the event's id, a UUID, always the same for the same restore.
	ID string
	// Item is the archive's id of the item.
	Item  string
	Actor string
	At    time.Time
	// Context is a JSON object; empty means {}.
	Context string
}

// Restored records restores in one transaction: a RESTORE event for each, and
// the time in its item's restored_at. What is recorded already is left as it is,
// so that it does no harm to record it again. On a server, where events belong to
// items, restores of an item that has vanished meanwhile are left out.
func (w *Writer) Restored(ctx context.Context, events []RestoreEvent) error {
	return w.sink.fault(ctx, "recording restores", w.sink.restored(ctx, events))
}
