package schemas

import "slices"

// Code is the stable name of an error. Codes are never renamed.
type Code string

// Class says what is done about an error.
type Class string

// The classes.
const (
	// ClassPermanent: trying again cannot help; the item fails at once.
	ClassPermanent Class = "permanent"
	// ClassTransient: the item is tried again after a delay, up to the limit.
	ClassTransient Class = "transient"
	// ClassBackendDown: what the work needs is away; it waits, and no attempt is
	// counted.
	ClassBackendDown Class = "backend-down"
	// ClassWorkerSick: this worker cannot write; its items go back uncounted.
	ClassWorkerSick Class = "worker-sick"
	// ClassPoison: the request itself is unusable and is set aside.
	ClassPoison Class = "poison"
)

// The codes.
const (
	CodeTombstoneNotFound   Code = "tombstone_not_found"
	CodeArtifactPurged      Code = "artifact_purged"
	CodeArtifactMissing     Code = "artifact_missing"
	CodeArtifactDenied      Code = "artifact_denied"
	CodeCodecUnsupported    Code = "codec_unsupported"
	CodeDecodeFailed        Code = "decode_failed"
	CodeIntegrityMismatch   Code = "integrity_mismatch"
	CodeTooLarge            Code = "too_large"
	CodePathRefused         Code = "path_refused"
	CodeDestinationExists   Code = "destination_exists"
	CodeDestinationDenied   Code = "destination_denied"
	CodeDestinationMissing  Code = "destination_missing"
	CodeDestinationDown     Code = "destination_down"
	CodeDestinationFull     Code = "destination_full"
	CodeDestinationReadOnly Code = "destination_read_only"
	CodeDestinationIO       Code = "destination_io"
	CodeDestinationBusy     Code = "destination_busy"
	CodeArchiveDown         Code = "archive_down"
	CodeArchiveBusy         Code = "archive_busy"
	CodeArchiveCorrupt      Code = "archive_corrupt"
	CodeArchiveError        Code = "archive_error"
	CodeLedgerDown          Code = "ledger_down"
	CodeLedgerLost          Code = "ledger_lost"
	CodeBrokerDown          Code = "broker_down"
	CodeBrokerDenied        Code = "broker_denied"
	CodeBrokerFull          Code = "broker_full"
	CodeNoCollector         Code = "no_collector"
	CodeBatchNotFound       Code = "batch_not_found"
	CodeBatchAmbiguous      Code = "batch_ambiguous"
	CodeBatchState          Code = "batch_state"
	CodeItemTimeout         Code = "item_timeout"
	CodeItemCancelled       Code = "item_cancelled"
	CodeItemSkipped         Code = "item_skipped"
	CodeWorkerKiller        Code = "worker_killer"
	CodeBadRequest          Code = "bad_request"
	CodeInternal            Code = "internal"
)

// CodeInfo explains one code.
type CodeInfo struct {
	Code  Code  `json:"code"`
	Class Class `json:"class"`
	// Cause is what happened; Remedy is what an operator can do.
	Cause  string `json:"cause"`
	Remedy string `json:"remedy"`
}

var codes = []CodeInfo{
	{CodeTombstoneNotFound, ClassPermanent, "the archive has no item with this tombstone",
		"check the id (case matters) and that --archive names the right archive; 'exhume list' shows what is there"},
	{CodeArtifactPurged, ClassPermanent, "the artifact's bytes were purged under dual control; only its record is left",
		"the bytes are gone for good here; restore them from a backup of the archive or store them again with 'exhume store --revive'"},
	{CodeArtifactMissing, ClassPermanent, "the artifact's bytes are not in the archive and no purge is recorded",
		"see where its object URL points with 'exhume show'; an object storage must be configured to read from it"},
	{CodeArtifactDenied, ClassPermanent, "the artifact's bytes are outside the archive, at a place that must not be read, or that does not let itself be read",
		"the detail names the place: allow it with EXHUME_S3_SOURCES, or give the access key the right to read there"},
	{CodeCodecUnsupported, ClassPermanent, "the bytes are compressed with a codec other than zstd or zlib, or with a window larger than allowed",
		"the archive was written by something else, or is damaged; see the codec with 'exhume show'"},
	{CodeDecodeFailed, ClassPermanent, "the compressed bytes cannot be decoded",
		"the blob is damaged; restore it from a backup of the archive"},
	{CodeIntegrityMismatch, ClassPermanent, "the decoded bytes do not have the size or SHA-256 that the archive declares",
		"the blob is damaged or was tampered with; nothing was written; restore it from a backup of the archive"},
	{CodeTooLarge, ClassPermanent, "the artifact is larger than allowed: to be decoded in memory, or to be stored in the database",
		"the detail names the limit: raise --memory, or the database's own setting"},
	{CodePathRefused, ClassPermanent, "the output is not a usable path below the destination root",
		"correct the output in the manifest, or choose the root with --root"},
	{CodeDestinationExists, ClassPermanent, "other content stands already where the output should go",
		"move it away, or allow replacing it with --overwrite if-different"},
	{CodeDestinationDenied, ClassPermanent, "the system does not allow writing there",
		"check owner and permissions of the destination directory, or the rights of the access key"},
	{CodeDestinationMissing, ClassPermanent, "there is no such bucket",
		"create it, or correct the destination root"},
	{CodeDestinationDown, ClassBackendDown, "the destination's server or file system does not answer, or its root is gone",
		"check that it runs and that EXHUME_S3_ENDPOINT is right, or that it is mounted; work continues by itself when it is back"},
	{CodeDestinationFull, ClassWorkerSick, "the destination's file system or quota is full",
		"free space there, then run the same command again: it continues where it stopped"},
	{CodeDestinationReadOnly, ClassWorkerSick, "the destination's file system is read-only",
		"remount it read-write or choose another --root, then run the same command again"},
	{CodeDestinationIO, ClassWorkerSick, "the destination's device reports an input/output error",
		"check the device (dmesg), then run the same command again"},
	{CodeDestinationBusy, ClassTransient, "the destination cannot take the file just now",
		"it is tried again by itself"},
	{CodeArchiveDown, ClassBackendDown, "the archive does not answer",
		"check that the archive's file or server is there; work continues by itself when it is back"},
	{CodeArchiveBusy, ClassTransient, "the archive is locked by somebody else",
		"it is tried again by itself; end long transactions on the archive"},
	{CodeArchiveCorrupt, ClassPermanent, "the archive's database is damaged or is no archive",
		"check it with the database's own tools (for SQLite: sqlite3 FILE 'PRAGMA integrity_check'); restore it from a backup"},
	{CodeArchiveError, ClassTransient, "the archive answered a query with an error",
		"see the detail; it is tried again by itself"},
	{CodeLedgerDown, ClassBackendDown, "the ledger's database does not answer",
		"check that its server is there; work continues by itself when it is back"},
	{CodeLedgerLost, ClassPermanent, "the ledger does not know batches that the broker works on, its file was removed, or its rebuilding was broken off",
		"check which ledger is configured; bring one that was lost back with 'exhume ledger rebuild'; batches that are not wanted any more can be cancelled then"},
	{CodeBrokerDown, ClassBackendDown, "the broker does not answer",
		"check that the NATS server runs and that its URL is right; 'exhume doctor' looks closer"},
	{CodeBrokerDenied, ClassPermanent, "the broker does not permit it to this user",
		"the detail names the subject: give the user the right to it in the NATS server's configuration, or use another user"},
	{CodeBrokerFull, ClassBackendDown, "the broker keeps as much as it may: the queue, the results or its whole store is full",
		"work goes on by itself when items are done, or results recorded; 'exhume doctor' shows what is full; raise EXHUME_QUEUE_BYTES, EXHUME_RESULTS_BYTES or the server's max_file_store"},
	{CodeNoCollector, ClassBackendDown, "no collector answers",
		"is one running? start it with 'exhume collector', or everything at once with 'exhume up'"},
	{CodeBatchNotFound, ClassPermanent, "there is no such batch",
		"'exhume batch list' shows which there are; a unique beginning of the id is enough, and 'latest' is the newest"},
	{CodeBatchAmbiguous, ClassPermanent, "the ids of several batches begin like this",
		"give more of one of them; the detail lists some"},
	{CodeBatchState, ClassPermanent, "the batch's state does not allow it",
		"'exhume batch show' tells the state and what brought the batch there"},
	{CodeItemTimeout, ClassTransient, "the item took longer than --item-timeout allows",
		"it is tried again by itself; for artifacts that need longer, raise --item-timeout (EXHUME_ITEM_TIMEOUT)"},
	{CodeItemCancelled, ClassPermanent, "the batch was cancelled before the item's turn",
		"restore what is missing with 'exhume batch retry BATCH --outcome cancelled'"},
	{CodeItemSkipped, ClassPermanent, "an operator left the item out",
		"restore it with 'exhume batch retry BATCH --outcome skipped'"},
	{CodeWorkerKiller, ClassPoison, "workers died while they had the item in hand, more than once",
		"look at the workers' logs and memory; restore the item alone with 'exhume restore' to see what happens"},
	{CodeBadRequest, ClassPoison, "the request cannot be understood",
		"correct what sent it: the detail says what is wrong; of an item of a batch, the payload is kept with the result"},
	{CodeInternal, ClassPermanent, "exhume itself failed on this item",
		"please report it with the detail"},
}

// Codes lists every code in a stable order. The caller may change the slice.
func Codes() []CodeInfo { return slices.Clone(codes) }

// Info explains the code; an unknown code is a permanent internal error.
func (c Code) Info() CodeInfo {
	for _, i := range codes {
		if i.Code == c {
			return i
		}
	}
	return CodeInfo{Code: c, Class: ClassPermanent, Cause: "unknown code", Remedy: "is this result from a newer exhume?"}
}

// Class is the code's class.
func (c Code) Class() Class { return c.Info().Class }
