
#!/bin/bash
cd @ROOT@/usr/local/kaiwudb/bin
@AS@./kwbase node status @SECURITY@ --host=127.0.0.1:@PORT@
