# Writes OUTPUT, a header with a digest of every source in FOLDER that says how weights are packed: packed weights
# on disk are only used by a build with the same digest.
file(GLOB_RECURSE sources LIST_DIRECTORIES false
  ${FOLDER}/conv*/* ${FOLDER}/linear/* ${FOLDER}/fastconv/* ${FOLDER}/resblock/* ${FOLDER}/isa/*.h ${FOLDER}/core/integers.h)
list(FILTER sources EXCLUDE REGEX "/bindings.cpp$|/__pycache__/")
list(SORT sources)
set(digests "")
foreach(source IN LISTS sources)
  file(SHA256 ${source} digest)
  string(APPEND digests ${digest})
endforeach()
string(SHA256 layout "${digests}")
string(SUBSTRING ${layout} 0 16 layout)
file(WRITE ${OUTPUT} "#pragma once\n\nnamespace rvc_fast {\nconstexpr const char* kLayout = \"${layout}\";\n}\n")
