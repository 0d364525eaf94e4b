# For tests and benches: a program that runs guests of User-Mode Linux, and a back end.
function(vmem_has_uml_guests program back_end)
	set(folder ${CMAKE_CURRENT_FUNCTION_LIST_DIR})
	# What User-Mode Linux needs on new processors: not for sanitizers, because the program that loads it has none.
	if(NOT TARGET uml_xstate)
		add_library(uml_xstate MODULE ${folder}/uml_xstate.c)
		target_link_libraries(uml_xstate PRIVATE vmem_warnings ${CMAKE_DL_LIBS})
		target_compile_options(uml_xstate PRIVATE -fno-sanitize=all)
		target_link_options(uml_xstate PRIVATE -fno-sanitize=all)
	endif()
	target_compile_definitions(${program} PRIVATE BACK_END="$<TARGET_FILE:${back_end}>"
		UML_XSTATE="$<TARGET_FILE:uml_xstate>" UML_INITRD_SCRIPT="${folder}/uml_initrd.sh")
	add_dependencies(${program} ${back_end} uml_xstate)
endfunction()
