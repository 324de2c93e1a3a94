package ledger

// key is what a result has once.
type key struct{ batchNo, index int64 }

// readKeys reads all the rows, which are a batch's number and an index each, and
// closes them.
func readKeys(found rows) (map[key]bool, error) {
	defer func() { _ = found.Close() }()
	keys := map[key]bool{}
	for found.Next() {
		var k key
		if err := found.Scan(&k.batchNo, &k.index); err != nil {
			return nil, err
		}
		keys[k] = true
	}
	return keys, found.Err()
}
