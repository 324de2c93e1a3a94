package collector

import "math/bits"

// indexes is a set of the indexes of items: a bit for each where they stand close
// together, so that it holds batches of millions. The zero value is empty.
type indexes struct {
	// parts are indexPart indexes each, by the first of them divided by that.
	parts map[int64]*[indexPart / 64]uint64
	n     int
}

// indexPart is how many indexes are kept together.
const indexPart = 2048

// at is where an index has its bit.
func (s *indexes) at(index int64) (part *[indexPart / 64]uint64, word int64, bit uint64) {
	offset := index & (indexPart - 1)
	return s.parts[index>>11], offset >> 6, 1 << (offset & 63)
}

func (s *indexes) has(index int64) bool {
	if s == nil {
		return false
	}
	part, word, bit := s.at(index)
	return part != nil && part[word]&bit != 0
}

func (s *indexes) add(index int64) {
	part, word, bit := s.at(index)
	if part == nil {
		if s.parts == nil {
			s.parts = map[int64]*[indexPart / 64]uint64{}
		}
		part = new([indexPart / 64]uint64)
		s.parts[index>>11] = part
	}
	if part[word]&bit == 0 {
		part[word] |= bit
		s.n++
	}
}

func (s *indexes) remove(index int64) {
	if part, word, bit := s.at(index); part != nil && part[word]&bit != 0 {
		part[word] &^= bit
		s.n--
	}
}

// all are the indexes, in no order.
func (s *indexes) all() (all []int64) {
	if s == nil {
		return nil
	}
	for first, part := range s.parts {
		for word, set := range part {
			for ; set != 0; set &= set - 1 {
				all = append(all, first*indexPart+int64(word*64+bits.TrailingZeros64(set)))
			}
		}
	}
	return all
}
