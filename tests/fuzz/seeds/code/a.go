a.gopackage main

import (
	"fmt"
)

type T struct{ x int }

func (t *T) F() (int, error) { return t.x, nil }

func main() { go func() { fmt.Println(`x`) }() }

var y = map[string]int{"a": 1}
