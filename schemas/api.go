package schemas

import "time"

// Subjects of the control API, a NATS micro service that collectors share. Each
// takes one JSON message and answers with one:
//
//	APIBatchOpen     Batch         Summary
//	APIBatchKept     BatchRef      KeptTo
//	APIBatchKeep     Kept          Empty
//	APIBatchSeal     BatchSeal     Summary
//	APIBatchGet      BatchRef      BatchReport
//	APIBatchList     BatchList     BatchListing
//	APIBatchResults  ResultsQuery  ResultsPage
//	APIBatchWhy      WhyQuery      Whereabouts
//	APIBatchEvents   BatchRef      BatchEvents
//	APIBatchChange   BatchChange   Summary
//	APIBatchTerms    BatchTerms    Summary
//	APIBatchSkip     ItemSkip      Summary
//	APIBatchCopy     BatchCopy     BatchCopied
//	APIBatchAudit    BatchRef      Audit
//	APILetters       LettersQuery  LettersPage
//	APILetterGroups  LettersQuery  LetterGroups
//	APIFleetGet      Empty         Fleet
//	APIFleetChange   FleetChange   Steering
//
// A Batch that is opened as StatePaused is held.
//
// An answer that is an error has the code in the header Nats-Service-Error-Code,
// its text in Nats-Service-Error, and an APIError in its body.
const (
	SubjectsAPI     = "exhume.api.>"
	APIBatchOpen    = "exhume.api.batch.open"
	APIBatchKept    = "exhume.api.batch.kept"
	APIBatchKeep    = "exhume.api.batch.keep"
	APIBatchSeal    = "exhume.api.batch.seal"
	APIBatchGet     = "exhume.api.batch.get"
	APIBatchList    = "exhume.api.batch.list"
	APIBatchResults = "exhume.api.batch.results"
	APIBatchWhy     = "exhume.api.batch.why"
	APIBatchEvents  = "exhume.api.batch.events"
	APIBatchChange  = "exhume.api.batch.change"
	APIBatchTerms   = "exhume.api.batch.terms"
	APIBatchSkip    = "exhume.api.batch.skip"
	APIBatchCopy    = "exhume.api.batch.copy"
	APIBatchAudit   = "exhume.api.batch.audit"
	APILetters      = "exhume.api.dlq.list"
	APILetterGroups = "exhume.api.dlq.groups"
	APIFleetGet     = "exhume.api.fleet.get"
	APIFleetChange  = "exhume.api.fleet.change"
)

// Empty is a question, or an answer, without content.
type Empty struct{}

// Fleet answers APIFleetGet: what holds for the fleet, and the workers that
// answered.
type Fleet struct {
	Steering
	Workers []WorkerStatus `json:"workers"`
}

// BatchEvents are the newest events of a batch, oldest first.
type BatchEvents struct {
	Batch  string       `json:"batch"`
	Events []BatchEvent `json:"events"`
}

// MaxWhyItems is how many open items a WhyQuery can ask for.
const MaxWhyItems = 10_000

// WhyQuery asks where the open items of a batch are.
type WhyQuery struct {
	BatchRef
	// Items is how many of them are to be listed one by one, the lowest indexes
	// first.
	Items int `json:"items,omitempty"`
}

// APIError is the body of an answer that is an error.
type APIError struct {
	Code Code `json:"code"`
	// Detail is one line for people, without secrets.
	Detail string `json:"detail"`
}

// MaxKept is how many requests one Kept has at most.
const MaxKept = 4096

// Kept are requests of a batch that follow each other. The ledger keeps them until
// the batch ends, so that what the broker loses of them can be published again.
type Kept struct {
	// Batch is the batch's whole id.
	Batch string `json:"batch"`
	// First and Last are the indexes of the first and the last item.
	First int64 `json:"first"`
	Last  int64 `json:"last"`
	// Body is a JSON array of their RequestItems, 1 to MaxKept in the order of their
	// indexes, compressed with zstd; in JSON it is base64 text.
	Body []byte `json:"body"`
}

// KeptTo says how far the requests of a batch are kept.
type KeptTo struct {
	// Next is the lowest index whose request is not.
	Next int64 `json:"next"`
}

// BatchSeal says that all requests of a batch are published.
type BatchSeal struct {
	ID string `json:"id"`
	// Total is the true number of the batch's items.
	Total int64 `json:"total"`
	// ManifestSHA256 is the digest of the manifest's bytes, lower-case hex.
	ManifestSHA256 string `json:"manifest_sha256,omitempty"`
}

// BatchRef means one batch: by its id, the beginning of just one id, or "latest".
type BatchRef struct {
	Ref string `json:"ref"`
}

// BatchReport is all that is known about a batch as a whole.
type BatchReport struct {
	Summary
	// OpenItems is how many items have no result yet; see Summary.Open.
	OpenItems int64 `json:"open"`
	// FailedByCode counts the failed items by their code.
	FailedByCode map[Code]int64 `json:"failed_by_code,omitempty"`
}

// BatchList asks for batches, newest first.
type BatchList struct {
	// Limit is how many are wanted, 0 for all. Skip leaves out the newest.
	Limit int `json:"limit,omitempty"`
	Skip  int `json:"skip,omitempty"`
}

// BatchListing answers BatchList. More says that there are more than fit into
// the message: ask again and skip those that are known.
type BatchListing struct {
	Batches []Summary `json:"batches"`
	More    bool      `json:"more,omitempty"`
}

// MaxResultsPage is how many results one ResultsPage has at most.
const MaxResultsPage = 1000

// ResultsQuery asks for results of a batch in the order of their indexes.
type ResultsQuery struct {
	// Batch is a reference; see BatchRef.
	Batch string `json:"batch"`
	// From is the first index that is wanted.
	From int64 `json:"from,omitempty"`
	// Limit is how many are wanted; 0 means MaxResultsPage, which is the most.
	Limit int `json:"limit,omitempty"`
	ResultFilter
}

// ResultsPage answers ResultsQuery. It may have fewer results than were asked
// for, because a message has a limit.
type ResultsPage struct {
	// Batch is the batch's whole id.
	Batch   string   `json:"batch"`
	Results []Result `json:"results"`
	// Next is From of the query for the next page, 0 when this is the last.
	Next int64 `json:"next,omitempty"`
}

// Whereabouts say where the items of a batch are that have no result yet. Items
// travel in messages of 1 to MaxRequests; the broker counts messages.
type Whereabouts struct {
	Batch string `json:"batch"`
	State State  `json:"state"`
	Standing
	Terms Terms `json:"terms,omitzero"`
	// Total and Open count items, as in Summary.
	Total int64 `json:"total"`
	Open  int64 `json:"open"`
	// Published is for how many items the producer has published a request.
	Published int64 `json:"published"`
	// Kept is for how many items, from the first on, the ledger keeps the request: what
	// the broker loses of those is published again.
	Kept int64 `json:"kept"`
	// Waiting are messages in the queue that no worker has taken yet.
	Waiting int64 `json:"waiting_messages"`
	// InHand are messages in the hands of workers, or held back for a retry.
	InHand int64 `json:"in_hand_messages"`
	// Retrying are items that failed and wait for their next try, Causes the
	// codes of their last failures, and NextTry is when the first is due.
	Retrying int64          `json:"retrying"`
	Causes   map[Code]int64 `json:"causes,omitempty"`
	NextTry  time.Time      `json:"next_try,omitzero"`
	// Unrecorded are messages of results, of this batch and others, that no
	// collector has recorded yet.
	Unrecorded int64 `json:"unrecorded_messages"`
	// Active are the other batches that workers take items of, by priority.
	Active map[Priority]int64 `json:"active,omitempty"`
	// Limits are those that the batch is, or may be, under: which archive its
	// workers read from, they know.
	Limits []Limit `json:"limits,omitempty"`
	// Workers are those that answered, with what they have in hand of the batch.
	Workers []WorkerStatus `json:"workers,omitempty"`
	// Items are open items, as many as were asked for.
	Items []OpenItem `json:"items,omitempty"`
}

// Place is where an open item is.
type Place string

// The places.
const (
	PlaceUnpublished Place = "unpublished" // the producer has not published its request yet
	PlaceQueued      Place = "queued"
	PlaceInHand      Place = "in-hand"
	PlaceRetry       Place = "waiting-for-retry"
	PlaceElsewhere   Place = "unrecorded" // in nobody's hand that answered, or done and not recorded yet
)

// OpenItem is where an item without a result is.
type OpenItem struct {
	Index int64 `json:"index"`
	Place Place `json:"place"`
	// Worker has it in hand, since Since. Attempt is the number of the attempt that
	// is made or waited for.
	Worker  string    `json:"worker,omitempty"`
	Since   time.Time `json:"since,omitzero"`
	Attempt int       `json:"attempt,omitempty"`
	// NextTry is when it is tried again; LastError is that of the last attempt.
	NextTry   time.Time `json:"next_try,omitzero"`
	LastError string    `json:"last_error,omitempty"`
}
