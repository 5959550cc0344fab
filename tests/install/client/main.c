/* Ten lines against the installed package: a plan of eight ranks, and the CPU module found. */
#include <pgrun/pgrun.h>
#include <stdio.h>

int main(void) {
    static pgr_error error;
    pgr_plan plan;
    pgr_spec spec;
    pgr_spec_init(&spec);
    spec.parallel.tp = 2;
    pgr_family tp;
    const pgr_module *cpu;
    if (pgr_plan_create(&spec, 8, &plan, &error) != PGR_OK ||
        pgr_plan_family_find(&plan, "tp", &tp, &error) != PGR_OK ||
        pgr_module_open("cpu", &cpu, &error) != PGR_OK) {
        fprintf(stderr, "%s\n", error.message);
        return 1;
    }
    printf("%s: %d groups of %d, module %s\n", tp.name, (int)tp.count, (int)tp.size, cpu->name);
    pgr_spec_free(&spec);
    return 0;
}
